//! Calls that carry many questions: how many, and how each is answered for itself.

use tonic::{Code, Status};

use crate::Malformed;

/// Questions in one call, at most.
pub const MOST: usize = 1_024;

/// # Errors
/// When one call carries more than [`MOST`].
pub fn not_too_many<T>(field: &'static str, questions: &[T]) -> Result<(), Malformed> {
    match questions.len() {
        ..=MOST => Ok(()),
        many => Err(Malformed::new(field, format!("{many} are more than {MOST}"))),
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
    fn each_question_has_its_own_outcome() {
        assert!(outcome(0, "").is_ok());
        let (code, detail) = refusal(&Status::aborted("why"));
        let refused = outcome(code, &detail).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Aborted, "why"));
        assert_eq!(outcome(u32::MAX, "").unwrap_err().code(), Code::Unknown);
    }

    #[test]
    fn a_call_has_a_bound() {
        assert!(not_too_many("ids", &[0; MOST]).is_ok());
        assert!(not_too_many("ids", &[0; MOST + 1]).unwrap_err().to_string().contains("1025"));
    }
}
