//! How messages that carry verifiers and second factors show themselves: by what may be known of them. The generated
//! code does not show them at all.

use std::fmt;

use crate::central::{Account, CreateRequest, SetProofRequest, SetSecondFactorRequest};

/// `Debug` that shows these fields and no others.
macro_rules! show_only {
    ($($message:ident { $($field:ident),+ })+) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))+
                    .finish_non_exhaustive()
            }
        })+
    };
}

show_only! {
    Account { id, name, version }
    CreateRequest { name, region }
    SetProofRequest { account, known_version }
    SetSecondFactorRequest { account, known_version }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::central::FindReply;

    #[test]
    fn debug_output_hides_verifiers_and_second_factors() {
        let secret = vec![77, 78, 79];
        let account = Account {
            id: 5,
            salt: secret.clone(),
            verifier: secret.clone(),
            second_factor: secret.clone(),
            ..Account::default()
        };
        let shown = [
            format!("{:?}", FindReply { account: Some(account) }),
            format!("{:?}", CreateRequest { verifier: secret.clone(), ..CreateRequest::default() }),
            format!("{:?}", SetProofRequest { verifier: secret.clone(), ..SetProofRequest::default() }),
            format!("{:?}", SetSecondFactorRequest { second_factor: secret, ..Default::default() }),
        ];
        assert!(shown[0].contains("id: 5"), "{shown:?}");
        assert!(shown.iter().all(|text| !text.contains("77")), "{shown:?}");
    }
}
