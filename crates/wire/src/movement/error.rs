//! Errors of decoding movement messages.

use crate::{
    cursor::{Cursor, Truncated},
    varint::VarintError,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MovementError {
    #[error("the payload ends inside a field")]
    Truncated,
    #[error("the payload has bytes after its last field")]
    Trailing,
    #[error("form {0} is neither keyframe nor delta")]
    Form(u8),
    #[error("{0} entries do not fit into the payload")]
    Count(u64),
    #[error("{0}")]
    Varint(VarintError),
    #[error("reserved bits are set in mask {0:#04x}")]
    Mask(u8),
    #[error("entity kind {0} does not exist")]
    Kind(u8),
    #[error("removal reason {0} does not exist")]
    RemovalReason(u8),
    #[error("a name is not UTF-8")]
    Name,
}

impl MovementError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated => "movement_truncated",
            Self::Trailing => "movement_trailing",
            Self::Form(_) => "movement_form",
            Self::Count(_) => "movement_count",
            Self::Varint(_) => "movement_varint",
            Self::Mask(_) => "movement_mask",
            Self::Kind(_) => "movement_kind",
            Self::RemovalReason(_) => "movement_removal_reason",
            Self::Name => "movement_name",
        }
    }
}

impl From<Truncated> for MovementError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

pub(super) fn expect_end(cursor: Cursor<'_>) -> Result<(), MovementError> {
    if cursor.is_empty() { Ok(()) } else { Err(MovementError::Trailing) }
}
