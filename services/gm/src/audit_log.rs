//! The audit: one entry for each command, sign-in and password change of an operator.

use shardkeep_daemon::unix_millis;
use shardkeep_store::{
    Database, Error,
    audit::{self, Entry, Invocation},
};
use tracing::warn;

use crate::origin::Origin;

/// Result of one entry, in characters. A list of all players would otherwise fill the pages and replies of the audit.
const MAX_RESULT_CHARS: usize = 4_000;

/// How a command ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Done,
    Denied,
    Failed,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone)]
pub(crate) struct AuditLog {
    database: Database,
}

impl AuditLog {
    pub(crate) fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes the entry of a command that is about to run. Returns its number.
    pub(crate) async fn begin(
        &self,
        operator: &str,
        origin: &Origin,
        command: &str,
        reason: &str,
    ) -> Result<u64, Error> {
        let invocation = Invocation {
            at_ms: unix_millis(),
            operator: operator.to_owned(),
            origin: origin.to_string(),
            command: command.to_owned(),
            reason: reason.to_owned(),
        };
        audit::begin(&self.database, &invocation).await
    }

    /// Writes the result of a command into its entry. A long result is cut.
    pub(crate) async fn finish(&self, entry: u64, verdict: Verdict, result: &str) -> Result<(), Error> {
        let result: &str = match result.char_indices().nth(MAX_RESULT_CHARS) {
            Some((end, _)) => &format!("{}…", &result[..end]),
            None => result,
        };
        audit::finish(&self.database, entry, verdict.as_str(), result).await
    }

    /// Writes a complete entry for an action that is not a command, such as a sign-in. The action has already
    /// happened, so a failure is logged and not returned.
    pub(crate) async fn record(
        &self,
        operator: &str,
        origin: &Origin,
        action: &str,
        verdict: Verdict,
        result: &str,
    ) {
        let written = match self.begin(operator, origin, action, "").await {
            Ok(entry) => self.finish(entry, verdict, result).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            warn!(%error, operator, action, "the audit has no entry for an action: the operators' store failed");
        }
    }

    /// The newest entries with numbers below `before` (0: the newest of all). An empty `operator` selects everyone.
    pub(crate) async fn page(&self, before: u64, operator: &str, limit: u32) -> Result<Vec<Entry>, Error> {
        audit::page(&self.database, before, operator, limit).await
    }

    /// An entry by its number, if it belongs to `operator`.
    pub(crate) async fn entry(&self, number: u64, operator: &str) -> Result<Option<Entry>, Error> {
        let Some(before) = number.checked_add(1) else { return Ok(None) };
        let newest = self.page(before, operator, 1).await?.into_iter().next();
        Ok(newest.filter(|entry| entry.id == number))
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_store::Schema;

    use super::*;

    #[tokio::test]
    async fn long_result_is_cut_in_the_audit() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        let audit = AuditLog::new(Database::open(&url, Schema::Gm).await.unwrap());
        let entry =
            audit.begin("ann", &Origin::grpc(None, None), "list the players online", "").await.unwrap();
        audit.finish(entry, Verdict::Done, &"ü".repeat(100_000)).await.unwrap();
        let result = audit.entry(entry, "ann").await.unwrap().unwrap().result;
        assert_eq!(result, "ü".repeat(MAX_RESULT_CHARS) + "…");
    }
}
