//! Why a batch is refused. The zone is at fault, except when this replica is too busy.

use shardkeep_behavior::GridError;
use tonic::Status;

#[derive(Debug, thiserror::Error)]
pub enum AiError {
    #[error("the first batch of a stream must carry the walk grid")]
    NoGrid,
    #[error("walk grid: {0}")]
    Grid(#[from] GridError),
    #[error("{got} creatures in one batch; at most {limit}")]
    TooMany { got: usize, limit: usize },
    #[error("{0} streams are open already")]
    Full(usize),
}

impl AiError {
    /// The name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoGrid => "no_grid",
            Self::Grid(_) => "grid",
            Self::TooMany { .. } => "too_many",
            Self::Full(_) => "full",
        }
    }
}

impl From<AiError> for Status {
    fn from(error: AiError) -> Self {
        let message = error.to_string();
        match error {
            AiError::NoGrid => Status::failed_precondition(message),
            AiError::Grid(_) => Status::invalid_argument(message),
            AiError::TooMany { .. } | AiError::Full(_) => Status::resource_exhausted(message),
        }
    }
}
