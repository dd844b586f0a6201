//! The operator behind a call. The command line names its operator in `user-agent`, and the console in a header of its
//! calls, so that daemons can record a person and not only a certificate.

use tonic::{
    Request, Status,
    codegen::http::{self, header::USER_AGENT},
    metadata::MetadataValue,
};

use crate::Peer;

const HEADER: &str = "shardkeep-operator";
const USER_AGENT_PREFIX: &str = "operator/";
const MAX_BYTES: usize = 64;

/// The name of an operator: 1 to 64 ASCII letters, digits, `-`, `_`, `.` and `@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorName(String);

impl OperatorName {
    /// Returns `None` if the text is not a name.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        let valid = (1..=MAX_BYTES).contains(&text.len()) && text.chars().all(allowed);
        valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the headers of a call.
    pub(crate) fn of_headers(headers: &http::HeaderMap) -> Option<Self> {
        if let Some(name) = headers.get(HEADER) {
            return Self::parse(name.to_str().ok()?);
        }
        let user_agent = headers.get(USER_AGENT)?.to_str().ok()?;
        user_agent.split(' ').find_map(|word| word.strip_prefix(USER_AGENT_PREFIX)).and_then(Self::parse)
    }

    /// The `user-agent` of a tool of this peer that this operator uses.
    pub(crate) fn user_agent(&self, peer: &Peer) -> String {
        format!("{peer} {USER_AGENT_PREFIX}{}", self.0)
    }
}

/// Adds the name of an operator to a call. A name that cannot be sent is left out.
pub fn set_operator<T>(request: &mut Request<T>, operator: &str) {
    let value = OperatorName::parse(operator).and_then(|name| MetadataValue::try_from(name.0).ok());
    if let Some(value) = value {
        request.metadata_mut().insert(HEADER, value);
    }
}

/// The caller for logs and events: `ann (cli/cli)`, or `gm/gm-1` if the call names no operator.
///
/// # Errors
/// `Unauthenticated` when the request did not come through [`crate::Node::serve`].
pub fn caller_name<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = Peer::of(request)?;
    Ok(match request.extensions().get::<OperatorName>() {
        Some(operator) => format!("{} ({peer})", operator.0),
        None => peer.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{DaemonKind, WorldId};

    use super::*;

    #[test]
    fn operator_is_read_from_header_or_user_agent() {
        let peer = Peer::new(DaemonKind::Cli, "cli", WorldId(0));
        let ann = OperatorName::parse("ann@example.org").unwrap();
        let mut headers = http::HeaderMap::new();
        assert_eq!(OperatorName::of_headers(&headers), None);
        headers.insert(USER_AGENT, format!("{} tonic/0.14", ann.user_agent(&peer)).parse().unwrap());
        assert_eq!(OperatorName::of_headers(&headers), Some(ann));
        headers.insert(HEADER, "bob".parse().unwrap());
        assert_eq!(OperatorName::of_headers(&headers).unwrap().as_str(), "bob");
    }

    #[test]
    fn text_that_is_no_operator_name_is_refused() {
        for wrong in ["", "ann bob", "ann\n", "änn", &"x".repeat(65)] {
            assert_eq!(OperatorName::parse(wrong), None, "{wrong:?}");
        }
    }
}
