//! The parts that all commands share: the trait, their services, their result, and checks of arguments.

use std::fmt;

use serde_json::{Value, json};
use shardkeep_cluster::set_operator;
use shardkeep_names::is_plain_line;
use shardkeep_rpc::accounts;
use shardkeep_store::Database;
use shardkeep_types::DaemonKind;
use tonic::{Code, Response, Status};

use crate::{
    error::CommandError,
    peers::{Peers, call_while_unavailable, peer_error, with_deadline},
    players::Players,
    role::Right,
    sign_in::SignIn,
};

const MAX_NAME_CHARS: usize = 64;

/// A command with checked arguments. `Display` is its text in the audit.
pub(crate) trait OperatorCommand: fmt::Display {
    const NAME: &'static str;
    const RIGHT: Right;
    /// False for a command that only reads. Such a command needs no reason.
    const CHANGES: bool = true;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError>;
}

/// A command whose message has no field, with its text in the audit.
macro_rules! command_without_arguments {
    ($command:ident, $text:literal) => {
        pub(crate) struct $command;

        impl TryFrom<shardkeep_rpc::gm::$command> for $command {
            type Error = CommandError;

            fn try_from(_: shardkeep_rpc::gm::$command) -> Result<Self, CommandError> {
                Ok(Self)
            }
        }

        impl std::fmt::Display for $command {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($text)
            }
        }
    };
}
pub(crate) use command_without_arguments;

/// The services of the console that commands use.
#[derive(Clone, Copy)]
pub(crate) struct CommandServices<'a> {
    pub(crate) peers: &'a Peers,
    pub(crate) players: &'a Players,
    pub(crate) database: &'a Database,
    pub(crate) sign_in: &'a SignIn,
}

/// One execution of a command.
pub(crate) struct CommandContext<'a> {
    services: CommandServices<'a>,
    operator: &'a str,
    reason: &'a str,
    audit_entry: u64,
    now_ms: u64,
}

impl<'a> CommandContext<'a> {
    pub(crate) fn new(
        services: CommandServices<'a>,
        operator: &'a str,
        reason: &'a str,
        audit_entry: u64,
        now_ms: u64,
    ) -> Self {
        Self { services, operator, reason, audit_entry, now_ms }
    }

    pub(crate) fn peers(&self) -> &Peers {
        self.services.peers
    }

    pub(crate) fn players(&self) -> &Players {
        self.services.players
    }

    pub(crate) fn database(&self) -> &Database {
        self.services.database
    }

    pub(crate) fn sign_in(&self) -> &SignIn {
        self.services.sign_in
    }

    pub(crate) fn operator(&self) -> &str {
        self.operator
    }

    pub(crate) fn reason(&self) -> &str {
        self.reason
    }

    /// The number of the command's entry in the audit.
    pub(crate) fn audit_entry(&self) -> u64 {
        self.audit_entry
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A request with the usual deadline and the name of the operator.
    pub(crate) fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = with_deadline(message);
        set_operator(&mut request, self.operator);
        request
    }

    /// Repeats an idempotent call while the daemon is unavailable.
    pub(crate) async fn call<C, M, T, F>(
        &self,
        client: &C,
        message: &M,
        call: impl Fn(C, tonic::Request<M>) -> F,
    ) -> Result<T, Status>
    where
        C: Clone,
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        call_while_unavailable(client, || self.request(message.clone()), call).await
    }

    /// Calls a login daemon. The call is repeated while the daemon is unavailable, so it must be idempotent. An
    /// unknown account becomes [`CommandError::NotFound`].
    pub(crate) async fn call_accounts<M, T, F>(
        &self,
        message: M,
        call: impl Fn(AccountsClient, tonic::Request<M>) -> F,
    ) -> Result<T, CommandError>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (client, login) = self.peers().accounts()?;
        let reply = self.call(&client, &message, call).await;
        reply.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => peer_error(&login)(status),
        })
    }

    /// Looks up an account by its name.
    pub(crate) async fn account(&self, name: &str) -> Result<accounts::Account, CommandError> {
        let selector = Some(accounts::show_request::Selector::Name(name.to_owned()));
        let (mut client, login) = self.peers().accounts()?;
        let reply = client.show(self.request(accounts::ShowRequest { selector })).await;
        reply.map(Response::into_inner).map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(format!("there is no account {name}")),
            _ => peer_error(&login)(status),
        })
    }
}

type AccountsClient = accounts::accounts_client::AccountsClient<tonic::transport::Channel>;

/// The result of a command, as text and as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    text: String,
    json: Value,
}

impl Outcome {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }

    pub(crate) fn text_only(text: impl Into<String>) -> Self {
        Self::new(text, json!({}))
    }

    pub(crate) fn sessions_ended(count: u32) -> Self {
        Self::new(format!("{} ended", plural(count, "session")), json!({ "ended": count }))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn json(&self) -> &Value {
        &self.json
    }

    /// The one-time link that the command has made, if it has.
    pub(crate) fn link(&self) -> Option<&str> {
        self.json.get("link").and_then(Value::as_str)
    }
}

/// A name without surrounding spaces. It must be a plain line of 1 to 64 characters.
pub(crate) fn checked_name(field: &str, text: &str) -> Result<String, CommandError> {
    let text = text.trim();
    let fits = (1..=MAX_NAME_CHARS).contains(&text.chars().count());
    if fits && is_plain_line(text) {
        return Ok(text.to_owned());
    }
    Err(CommandError::Malformed(format!(
        "{field}: {text:?} is not a name of 1 to {MAX_NAME_CHARS} characters without control characters and \
         bidirectional controls"
    )))
}

/// The kind and the name of a daemon.
pub(crate) fn checked_daemon(kind: &str, name: &str) -> Result<(DaemonKind, String), CommandError> {
    let kind = kind.parse().map_err(|error| CommandError::Malformed(format!("kind: {error}")))?;
    Ok((kind, checked_name("daemon", name)?))
}

/// `1 session`, `2 sessions`.
pub(crate) fn plural(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
