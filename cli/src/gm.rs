//! `shardkeep gm …`: the operators' commands, under the same roles and the same audit as the web console.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use shardkeep_rpc::gm::{
    self, AuditRequest, Command as GmCommand, SignInReply, SignInRequest, SignOutRequest, UseLinkRequest,
    command::Command as Action, target::Selector,
};
use shardkeep_types::DaemonKind;

use crate::{
    daemon,
    data_dir::DataDir,
    gm_layout::{self, SectorCommand, SpaceCommand},
    operator::{ClusterArgs, Operator},
    terminal,
    token_file::TokenFile,
};

/// Roles of an operator, and the word that removes one.
const ROLES: [&str; 5] = ["viewer", "moderator", "game-master", "admin", NO_ROLE];
const NO_ROLE: &str = "none";

#[derive(Debug, Args)]
pub struct GmArgs {
    #[command(subcommand)]
    command: Command,
    /// File that keeps the token of the signed-in operator; by default a file of the local cluster, or with --registry a
    /// file in the home directory
    #[arg(long, global = true, value_name = "FILE", env = "SHARDKEEP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A link that signs in to the web console once
    Link,
    /// Give `admin` a password and sign in, with this cluster's own certificate as the proof
    Claim {
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Sign in; a file keeps the token
    SignIn {
        operator: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Forget the token, here and at the console
    SignOut,
    /// The players in the world
    Online,
    /// The daemons, as the console sees them
    Daemons,
    /// The worlds, with the number of players, and whether they are closed
    Worlds,
    /// Messages by their cost at the gateways
    Messages,
    /// End the session of a character
    Kick {
        character: String,
        #[arg(long)]
        reason: String,
    },
    /// Lock an account out
    Ban {
        account: String,
        /// Without end when absent
        #[arg(long, default_value_t = 0)]
        hours: u64,
        #[arg(long)]
        reason: String,
    },
    /// Let a banned account in again
    Unban {
        account: String,
        #[arg(long)]
        reason: String,
    },
    /// Where an account is logged in
    Sessions { account: String },
    /// End every session of an account; it may log in again
    LogOut {
        account: String,
        #[arg(long)]
        reason: String,
    },
    /// Close a world to players, or open it again; staff stay in a closed one and may enter
    Maintenance {
        world: u32,
        #[arg(value_enum)]
        mode: Mode,
        /// Players in the world are warned, and disconnected after this many seconds; 0: at once
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Players see it in the world list, and when they are disconnected
        #[arg(long)]
        reason: String,
    },
    /// Send a line to all players in a world
    Broadcast {
        text: String,
        #[arg(long, default_value_t = 1)]
        world: u32,
        #[arg(long, default_value = "announcement")]
        reason: String,
    },
    /// Move an avatar; coordinates are metres from the corner of the space
    Teleport {
        character: String,
        x: f64,
        y: f64,
        #[arg(long, default_value_t = 1)]
        world: u32,
        #[arg(long, default_value_t = 1)]
        space: u32,
        #[arg(long)]
        reason: String,
    },
    /// Forbid a character to chat; 0 minutes ends that
    Mute {
        character: String,
        minutes: u64,
        #[arg(long)]
        reason: String,
    },
    /// Give an account hours of play time; an account without a limit becomes prepaid
    Credit {
        account: String,
        hours: u64,
        #[arg(long)]
        reason: String,
    },
    /// Let a daemon finish its work and end
    Drain {
        #[arg(value_parser = daemon::kind(), hide_possible_values = true)]
        kind: DaemonKind,
        name: String,
        #[arg(long)]
        reason: String,
    },
    /// Remove a daemon that is offline from the registry
    Remove {
        #[arg(value_parser = daemon::kind(), hide_possible_values = true)]
        kind: DaemonKind,
        name: String,
        #[arg(long)]
        reason: String,
    },
    /// List, move, split and merge the sectors of a world
    #[command(subcommand)]
    Sector(SectorCommand),
    /// List, create and close the spaces of a world
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Add an operator, change its role or password
    Operator {
        name: String,
        /// The role; `none` removes the operator
        #[arg(value_parser = PossibleValuesParser::new(ROLES))]
        role: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
        #[arg(long)]
        reason: String,
    },
    /// The operators, their roles, and how they sign in
    Operators,
    /// The commands of operators, with time, reason and result
    Audit {
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

/// Whether players may enter a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Closed,
    Open,
}

pub async fn run(args: GmArgs) -> Result<()> {
    let operator = Operator::connect(&args.cluster).await?;
    let tokens = TokenFile::new(args.token_file, &args.cluster)?;
    match args.command {
        Command::Link => println!("{}", operator.one_time_link().await?),
        Command::Claim { password_stdin } => {
            tokens.prepare()?;
            let password = terminal::password("New password for admin", password_stdin)?;
            let request =
                UseLinkRequest { link: operator.one_time_link().await?, password: password.expose().clone() };
            let reply =
                operator.gm().await?.use_link(request).await.map_err(terminal::status_error)?.into_inner();
            tokens.write(&reply.token)?;
            println!("{}", signed_in(&reply));
        }
        Command::SignIn { operator: name, password_stdin } => {
            tokens.prepare()?;
            let password = terminal::password(&format!("Password for {name}"), password_stdin)?;
            let request = SignInRequest { operator: name, password: password.expose().clone() };
            let reply =
                operator.gm().await?.sign_in(request).await.map_err(terminal::status_error)?.into_inner();
            tokens.write(&reply.token)?;
            println!("{}", signed_in(&reply));
        }
        Command::SignOut => {
            operator
                .gm()
                .await?
                .sign_out(tokens.sign(SignOutRequest {})?)
                .await
                .map_err(terminal::status_error)?;
            tokens.delete()?;
        }
        Command::Audit { limit } => audit(&operator, &tokens, limit).await?,
        command => {
            let drained = match &command {
                Command::Drain { name, .. } => Some(name.clone()),
                _ => None,
            };
            // Reports a missing sign-in before the command asks for a password.
            tokens.sign(())?;
            let reply = operator
                .gm()
                .await?
                .execute(tokens.sign(message(command)?)?)
                .await
                .map_err(terminal::status_error)?;
            println!("{}", reply.into_inner().text);
            if drained.as_ref().is_some_and(|name| runs_under_up(&args.cluster, name)) {
                println!("`up` starts {} again after it has drained", drained.unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Whether a daemon is a child of the `shardkeep up` of this folder.
fn runs_under_up(cluster: &ClusterArgs, name: &str) -> bool {
    let dir = DataDir::new(&cluster.data_dir);
    cluster.registry.is_none()
        && dir.is_ok_and(|dir| dir.announced(name).is_some() && dir.supervisor().ok().flatten().is_some())
}

fn signed_in(reply: &SignInReply) -> String {
    let SignInReply { operator, role, idle_s, expires_in_s, .. } = reply;
    let (unused, longest) = (idle_s / 60, expires_in_s / 60);
    format!(
        "signed in as {operator} ({role}); ends after {unused} min without use, and after {longest} min at last"
    )
}

/// The message of a command that the console executes.
fn message(command: Command) -> Result<GmCommand> {
    let character = |name| gm::Target { selector: Some(Selector::Character(name)) };
    let account = |name| gm::Target { selector: Some(Selector::Account(name)) };
    let (reason, action) = match command {
        Command::Online => (String::new(), Action::Online(gm::Online {})),
        Command::Daemons => (String::new(), Action::Daemons(gm::Daemons {})),
        Command::Worlds => (String::new(), Action::Worlds(gm::Worlds {})),
        Command::Operators => (String::new(), Action::Operators(gm::Operators {})),
        Command::Messages => (String::new(), Action::Messages(gm::Messages {})),
        Command::Kick { character: name, reason } => (reason, Action::Kick(character(name))),
        Command::Ban { account, hours, reason } => (reason, Action::Ban(gm::Ban { account, hours })),
        Command::Unban { account: name, reason } => (reason, Action::Unban(account(name))),
        Command::Sessions { account } => (String::new(), Action::Sessions(gm::AccountSessions { account })),
        Command::LogOut { account: name, reason } => (reason, Action::LogOut(account(name))),
        Command::Maintenance { world, mode, seconds, reason } => {
            let closed = mode == Mode::Closed;
            (reason, Action::Maintenance(gm::Maintenance { world, closed, seconds: Some(seconds) }))
        }
        Command::Broadcast { text, world, reason } => {
            (reason, Action::Broadcast(gm::Broadcast { world, text }))
        }
        Command::Teleport { character, x, y, world, space, reason } => (
            reason,
            Action::Teleport(gm::Teleport {
                world,
                character,
                x_mm: millimetres(x)?,
                y_mm: millimetres(y)?,
                space,
            }),
        ),
        Command::Mute { character, minutes, reason } => {
            (reason, Action::Mute(gm::Mute { character, minutes }))
        }
        Command::Credit { account, hours, reason } => {
            (reason, Action::Credit(gm::Credit { account, hours, key: String::new() }))
        }
        Command::Drain { kind, name, reason } => {
            (reason, Action::Drain(gm::Drain { kind: kind.to_string(), name }))
        }
        Command::Sector(command) => gm_layout::sector(command),
        Command::Space(command) => gm_layout::space(command),
        Command::Remove { kind, name, reason } => {
            (reason, Action::Remove(gm::RemoveDaemon { kind: kind.to_string(), name }))
        }
        Command::Operator { name, role, password_stdin, reason } => {
            let removed = role == NO_ROLE;
            let password = if removed {
                String::new()
            } else {
                terminal::password(&format!("New password for {name}"), password_stdin)?.expose().clone()
            };
            let role = if removed { String::new() } else { role };
            (reason, Action::Operator(gm::Operator { name, role, password }))
        }
        Command::Link
        | Command::Claim { .. }
        | Command::SignIn { .. }
        | Command::SignOut
        | Command::Audit { .. } => {
            unreachable!("`run` handles these commands")
        }
    };
    Ok(GmCommand { reason, command: Some(action) })
}

fn millimetres(metres: f64) -> Result<i32> {
    let mm = (metres * 1_000.0).round();
    anyhow::ensure!((0.0..=f64::from(i32::MAX)).contains(&mm), "{metres} m lies on no map");
    // Checked above.
    #[allow(clippy::cast_possible_truncation)]
    Ok(mm as i32)
}

async fn audit(operator: &Operator, tokens: &TokenFile, limit: u32) -> Result<()> {
    let request = tokens.sign(AuditRequest { before_id: 0, limit })?;
    let entries =
        operator.gm().await?.audit(request).await.map_err(terminal::status_error)?.into_inner().entries;
    let mut table = terminal::table(["id", "when (UTC)", "operator", "command", "reason", "result"]);
    for it in entries {
        let when = shardkeep_types::utc_minute(it.at_ms);
        table.add_row([it.id.to_string(), when, it.operator, it.command, it.reason, it.result]);
    }
    println!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: GmArgs,
    }

    fn refused(line: &[&str]) -> String {
        Line::try_parse_from([&["gm"], line].concat()).unwrap_err().to_string()
    }

    #[test]
    fn mistyped_role_is_answered_with_nearest_role() {
        let error = refused(&["operator", "ann", "moderater", "--reason", "new"]);
        assert!(error.contains("'moderator'"), "{error}");
    }

    #[test]
    fn mistyped_kind_of_daemon_is_answered_with_nearest_kind() {
        for command in ["drain", "remove"] {
            let error = refused(&[command, "gatway", "gateway-1", "--reason", "old"]);
            assert!(error.contains("'gateway'"), "{error}");
        }
    }
}
