//! Calls that carry many questions: how many, and how each is answered for itself.

use tonic::{Code, Status};

use crate::Malformed;

/// Questions in one call, at most.
pub const MAX_REQUESTS: usize = 1_024;

/// # Errors
/// When one call carries more than [`MAX_REQUESTS`].
pub fn check_request_count<T>(field: &'static str, requests: &[T]) -> Result<(), Malformed> {
    match requests.len() {
        ..=MAX_REQUESTS => Ok(()),
        count => Err(Malformed::new(field, format!("{count} are more than {MAX_REQUESTS}"))),
    }
}

/// Code and detail of a question that is refused.
pub fn refusal(status: &Status) -> (u32, String) {
    (status.code() as u32, status.message().to_owned())
}

/// One question's outcome, from its code and detail.
///
/// # Errors
/// When the code is not OK.
pub fn outcome(code: u32, detail: &str) -> Result<(), Status> {
    match i32::try_from(code).map_or(Code::Unknown, Code::from_i32) {
        Code::Ok => Ok(()),
        code => Err(Status::new(code, detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_outcome_round_trips_through_code_and_detail() {
        assert!(outcome(0, "").is_ok());
        let (code, detail) = refusal(&Status::aborted("why"));
        let refused = outcome(code, &detail).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Aborted, "why"));
        assert_eq!(outcome(u32::MAX, "").unwrap_err().code(), Code::Unknown);
    }

    #[test]
    fn request_count_over_the_limit_is_refused() {
        assert!(check_request_count("ids", &[0; MAX_REQUESTS]).is_ok());
        assert!(check_request_count("ids", &[0; MAX_REQUESTS + 1]).unwrap_err().to_string().contains("1025"));
    }
}
