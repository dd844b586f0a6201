//! Commands of operators: one file each, with what it needs, how it is shown in the audit, and what it does. A new
//! command is its file, a variant here and a right in `role.rs`.

mod ban;
mod broadcast;
mod credit;
mod daemons;
mod drain;
mod kick;
mod log_out;
mod maintenance;
mod messages;
mod mute;
mod online;
mod operator;
pub(crate) mod operators;
mod remove;
mod sessions;
mod teleport;
mod unban;
mod worlds;

use std::fmt;

use serde_json::{Value, json};
use shardkeep_rpc::{accounts, gm, gm::command::Command as Wire};
use tonic::Code;

use crate::{
    console::Console,
    error::CommandError,
    peers::{Peers, peer_error, with_deadline},
    role::Right,
};

/// What one command is.
trait OperatorCommand: fmt::Display {
    const NAME: &'static str;
    const RIGHT: Right;
    /// False: it only looks, and needs no reason.
    const CHANGES: bool = true;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError>;
}

/// Where a command finds what it needs.
pub(crate) struct CommandContext<'a> {
    pub(crate) console: &'a Console,
    pub(crate) operator: &'a str,
    pub(crate) reason: &'a str,
    /// Number of the command's entry in the audit.
    pub(crate) audit: u64,
    pub(crate) now_ms: u64,
}

impl CommandContext<'_> {
    fn peers(&self) -> &Peers {
        &self.console.peers
    }

    /// An account by its name, from login.
    async fn account(&self, name: &str) -> Result<accounts::Account, CommandError> {
        let (mut client, login) = self.peers().accounts()?;
        let selector = accounts::show_request::Selector::Name(name.to_owned());
        let reply = client.show(with_deadline(accounts::ShowRequest { selector: Some(selector) })).await;
        reply.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(format!("there is no account {name}")),
            _ => peer_error(&login)(status),
        })
    }
}

/// What came of a command: for people, and for programs.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Outcome {
    /// One number, named and told.
    fn counted(text: String, name: &str, count: impl Into<Value>) -> Self {
        Self { text, json: json!({ name: count.into() }) }
    }

    fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), json: json!({}) }
    }
}

macro_rules! commands {
    ($($variant:ident($wire:ident, $type:ty)),+ $(,)?) => {
        /// A command whose arguments are checked.
        pub(crate) enum Command {
            $($variant($type)),+
        }

        impl Command {
            pub(crate) fn parse(command: gm::Command) -> Result<Self, CommandError> {
                match command.command {
                    $(Some(Wire::$wire(message)) => <$type>::try_from(message).map(Self::$variant),)+
                    None => Err(CommandError::Malformed("no command".into())),
                }
            }

            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$type as OperatorCommand>::NAME),+
                }
            }

            pub(crate) fn right(&self) -> Right {
                match self {
                    $(Self::$variant(_) => <$type as OperatorCommand>::RIGHT),+
                }
            }

            /// Whether it changes anything, and so needs a reason.
            pub(crate) fn changes(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$type as OperatorCommand>::CHANGES),+
                }
            }

            pub(crate) async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
                match self {
                    $(Self::$variant(command) => command.execute(context).await),+
                }
            }
        }

        impl fmt::Display for Command {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(command) => command.fmt(f)),+
                }
            }
        }
    };
}

commands! {
    Kick(Kick, kick::Kick),
    Ban(Ban, ban::Ban),
    Unban(Unban, unban::Unban),
    Broadcast(Broadcast, broadcast::Broadcast),
    Teleport(Teleport, teleport::Teleport),
    Drain(Drain, drain::Drain),
    Mute(Mute, mute::Mute),
    Credit(Credit, credit::Credit),
    Online(Online, online::Online),
    Daemons(Daemons, daemons::Daemons),
    Messages(Messages, messages::Messages),
    Operator(Operator, operator::Operator),
    Remove(Remove, remove::Remove),
    Sessions(Sessions, sessions::Sessions),
    LogOut(LogOut, log_out::LogOut),
    Maintenance(Maintenance, maintenance::Maintenance),
    Worlds(Worlds, worlds::Worlds),
    Operators(Operators, operators::Operators),
}

/// A name as somebody typed it: trimmed, not empty, not endless, without control characters.
fn name(field: &str, text: &str) -> Result<String, CommandError> {
    let text = text.trim();
    let valid = !text.is_empty() && text.chars().count() <= 64 && !text.chars().any(char::is_control);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(CommandError::Malformed(format!("{field}: 1 to 64 characters")))
    }
}

/// A kind of daemon and the name of an instance.
fn instance(kind: &str, instance_name: &str) -> Result<(shardkeep_types::DaemonKind, String), CommandError> {
    let kind = kind.parse().map_err(|error| CommandError::Malformed(format!("{error}")))?;
    Ok((kind, name("daemon", instance_name)?))
}

/// `1 session`, `2 sessions`.
fn plural(count: u32, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Wire) -> Result<Command, CommandError> {
        Command::parse(gm::Command { reason: String::new(), command: Some(command) })
    }

    #[test]
    fn commands_describe_themselves_for_the_audit() {
        let ban = parse(Wire::Ban(gm::Ban { account: " mallory ".into(), hours: 48 })).ok().unwrap();
        assert_eq!((ban.name(), ban.to_string().as_str()), ("ban", "ban account mallory for 48 hours"));
        let operator =
            gm::Operator { name: "bob".into(), role: "viewer".into(), password: "secret-word".into() };
        let shown = parse(Wire::Operator(operator)).ok().unwrap().to_string();
        assert_eq!(shown, "operator bob becomes viewer with a new password");
        let close = gm::Maintenance { world: 2, closed: true, seconds: None };
        let close = parse(Wire::Maintenance(close)).ok().unwrap();
        assert_eq!(close.to_string(), "close world 2 to players, who may stay 60 s");
        assert!(close.changes());
        let look = parse(Wire::Sessions(gm::AccountSessions { account: "bob".into() }));
        assert!(look.is_ok_and(|command| !command.changes()));
        assert!(parse(Wire::Online(gm::Online {})).is_ok_and(|command| !command.changes()));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let wrong = [
            Wire::Kick(gm::Target { selector: None }),
            Wire::Ban(gm::Ban { account: String::new(), hours: 1 }),
            Wire::Drain(gm::Drain { kind: "toaster".into(), name: "x".into() }),
            Wire::Operator(gm::Operator { name: "bob".into(), role: "god".into(), password: String::new() }),
            Wire::Broadcast(gm::Broadcast { world: 0, text: "\u{7}".into() }),
            Wire::Teleport(gm::Teleport { character: "x".into(), x_mm: -1, ..Default::default() }),
            Wire::LogOut(gm::Target { selector: Some(gm::target::Selector::Character("x".into())) }),
            Wire::Maintenance(gm::Maintenance { world: 0, closed: true, seconds: None }),
            Wire::Maintenance(gm::Maintenance { world: 1, closed: true, seconds: Some(86_401) }),
            Wire::Sessions(gm::AccountSessions { account: " ".into() }),
            Wire::Unban(gm::Target { selector: Some(gm::target::Selector::Character("x".into())) }),
        ];
        for command in wrong {
            let shown = format!("{command:?}");
            assert!(matches!(parse(command), Err(CommandError::Malformed(_))), "{shown}");
        }
        assert!(Command::parse(gm::Command::default()).is_err());
    }
}
