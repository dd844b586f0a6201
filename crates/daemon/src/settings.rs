//! Reads settings from file, environment and flags.

use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};
use shardkeep_types::DaemonKind;

use crate::{Settings, Validate};

/// Where settings come from, later ones win: file, then environment, then `--set`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `SHARDKEEP_<SECTION>__` are ignored.
    pub env: Vec<(String, String)>,
    /// `section.key=value`
    pub set: Vec<String>,
}

/// What is wrong with the settings, and where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl<C: Serialize + DeserializeOwned + Default + Validate> Settings<C> {
    /// Reads, merges and checks the settings of a daemon of this kind.
    ///
    /// # Errors
    /// With file, line and column (or the variable or flag) of the first mistake, and what may have been meant.
    pub fn load(kind: DaemonKind, sources: &Sources) -> Result<Self, SettingsError> {
        let _ = (kind, sources);
        todo!()
    }
}
