//! Why a call failed, for programs: beside the code, which many reasons share.

use tonic::{Status, metadata::MetadataValue};

/// Metadata key of the reason: a label in snake case.
const REASON: &str = "shardkeep-reason";

/// The status with a machine-readable reason.
#[must_use]
pub fn with_reason(mut status: Status, reason: &'static str) -> Status {
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

/// The reason of a status; `None` when the peer gave none.
pub fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(REASON)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_reason_round_trips() {
        let status = with_reason(Status::aborted("stale"), "stale_epoch");
        assert_eq!(reason(&status), Some("stale_epoch"));
        assert_eq!(reason(&Status::aborted("other")), None);
    }
}
