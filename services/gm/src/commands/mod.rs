//! Operators' commands. Each file holds one command: its arguments, its text in the audit, and its effect. A new
//! command needs its file, a line in the table below and a right in `role.rs`.

mod ban;
mod broadcast;
mod close_space;
mod command;
mod create_space;
mod credit;
mod daemons;
mod drain;
mod kick;
mod layout;
mod log_out;
mod maintenance;
mod merge_sectors;
mod messages;
mod move_sector;
mod mute;
mod online;
mod operator;
mod operators;
mod remove;
mod sectors;
mod sessions;
mod spaces;
mod split_sector;
mod teleport;
mod unban;
mod worlds;

use std::fmt;

use shardkeep_rpc::{gm, gm::command::Command as Wire};

use crate::{error::CommandError, role::Right};

use command::OperatorCommand;

pub(crate) use command::{CommandContext, CommandServices, Outcome};
pub(crate) use layout::cells_text;
pub(crate) use operators::sign_in_method;

macro_rules! commands {
    ($($variant:ident($wire:ident, $type:ty)),+ $(,)?) => {
        /// A command with checked arguments.
        pub(crate) enum Command {
            $($variant($type)),+
        }

        impl Command {
            pub(crate) fn parse(command: gm::Command) -> Result<Self, CommandError> {
                match command.command {
                    $(Some(Wire::$wire(message)) => <$type>::try_from(message).map(Self::$variant),)+
                    None => Err(CommandError::Malformed("the request contains no command".into())),
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

            /// Whether it changes something and therefore needs a reason.
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
    Sectors(Sectors, sectors::Sectors),
    MoveSector(MoveSector, move_sector::MoveSector),
    SplitSector(SplitSector, split_sector::SplitSector),
    MergeSectors(MergeSectors, merge_sectors::MergeSectors),
    Spaces(Spaces, spaces::Spaces),
    CreateSpace(CreateSpace, create_space::CreateSpace),
    CloseSpace(CloseSpace, close_space::CloseSpace),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Wire) -> Result<Command, CommandError> {
        Command::parse(gm::Command { reason: String::new(), command: Some(command) })
    }

    #[test]
    fn command_text_in_the_audit_names_its_arguments() {
        let ban = parse(Wire::Ban(gm::Ban { account: " mallory ".into(), hours: 48 })).ok().unwrap();
        assert_eq!((ban.name(), ban.to_string().as_str()), ("ban", "ban account mallory for 48 hours"));
        let operator =
            gm::Operator { name: "bob".into(), role: "viewer".into(), password: "secret-word".into() };
        let shown = parse(Wire::Operator(operator)).ok().unwrap().to_string();
        assert_eq!(shown, "set operator bob to viewer with a new password");
        let close = gm::Maintenance { world: 2, closed: true, seconds: None };
        let close = parse(Wire::Maintenance(close)).ok().unwrap();
        assert_eq!(close.to_string(), "close world 2 to players after 60 s");
        assert!(close.changes());
        let look = parse(Wire::Sessions(gm::AccountSessions { account: "bob".into() }));
        assert!(look.is_ok_and(|command| !command.changes()));
        let split = gm::SplitSector { world: 1, sector: 3, line: Some(gm::split_sector::Line::Y(7)) };
        assert_eq!(parse(Wire::SplitSector(split)).ok().unwrap().to_string(), "split sector 3 at y 7");
        let unpin = gm::MoveSector { world: 1, sector: 3, zone: String::new() };
        let unpin = parse(Wire::MoveSector(unpin)).ok().unwrap();
        assert_eq!((unpin.to_string().as_str(), unpin.changes()), ("unpin sector 3", true));
        assert_eq!(unpin.right(), Right::ChangeLayout);
        assert!(parse(Wire::Sectors(gm::Sectors { world: 0 })).is_ok_and(|command| !command.changes()));
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
            Wire::Broadcast(gm::Broadcast { world: 0, text: "a\u{202e}b".into() }),
            Wire::Ban(gm::Ban { account: "a\u{2066}b".into(), hours: 1 }),
            Wire::Teleport(gm::Teleport { character: "x".into(), x_mm: -1, ..Default::default() }),
            Wire::LogOut(gm::Target { selector: Some(gm::target::Selector::Character("x".into())) }),
            Wire::CreateSpace(gm::CreateSpace { world: 0, map: " ".into(), tick_hz: 0 }),
            Wire::Maintenance(gm::Maintenance { world: 0, closed: true, seconds: None }),
            Wire::Maintenance(gm::Maintenance { world: 1, closed: true, seconds: Some(86_401) }),
            Wire::Sessions(gm::AccountSessions { account: " ".into() }),
            Wire::Mute(gm::Mute { character: "ü".repeat(33), minutes: 1 }),
            Wire::Unban(gm::Target { selector: Some(gm::target::Selector::Character("x".into())) }),
        ];
        for command in wrong {
            let shown = format!("{command:?}");
            assert!(matches!(parse(command), Err(CommandError::Malformed(_))), "{shown}");
        }
        assert!(Command::parse(gm::Command::default()).is_err());
    }
}
