//! The console: the services behind the web pages and the gRPC interface, and the execution of commands.

use std::time::Duration;

use shardkeep_daemon::unix_millis;
use shardkeep_names::is_plain_line;
use shardkeep_rpc::gm;
use shardkeep_store::{Database, mutes};
use tracing::{error, info, warn};

use crate::{
    Config,
    audit_log::{AuditLog, Verdict},
    commands::{Command, CommandContext, CommandServices, Outcome},
    error::CommandError,
    map::MapHub,
    metrics,
    origin::Origin,
    peers::Peers,
    players::Players,
    sessions::{OperatorSession, Sessions},
    sign_in::SignIn,
};

/// Time for one command. The calls of a command have shorter deadlines.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REASON_CHARS: usize = 500;

pub(crate) struct Console {
    config: Config,
    database: Database,
    peers: Peers,
    players: Players,
    map: MapHub,
    sessions: Sessions,
    sign_in: SignIn,
    audit: AuditLog,
}

/// A command that succeeded.
pub(crate) struct ExecutedCommand {
    /// Number of its entry in the audit.
    pub(crate) audit_entry: u64,
    pub(crate) outcome: Outcome,
}

/// A command that failed or was refused. It has no number only if the audit entry could not be written.
pub(crate) struct FailedCommand {
    pub(crate) audit_entry: Option<u64>,
    pub(crate) error: CommandError,
}

impl Console {
    /// `url` is the public address without a trailing slash.
    pub(crate) fn new(config: Config, url: String, database: Database, peers: Peers) -> Self {
        let sessions = Sessions::new(database.clone(), config.idle, config.session_lifetime);
        let audit = AuditLog::new(database.clone());
        let sign_in = SignIn::new(database.clone(), sessions.clone(), audit.clone(), url, config.link);
        let (players, map) = (Players::default(), MapHub::new(config.map_interval));
        Self { config, database, peers, players, map, sessions, sign_in, audit }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(crate) fn players(&self) -> &Players {
        &self.players
    }

    pub(crate) fn map(&self) -> &MapHub {
        &self.map
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    pub(crate) fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Executes a command: parse it, write its audit entry, check the role, run it, complete the entry. A command
    /// whose audit entry cannot be written does not run.
    pub(crate) async fn execute(
        &self,
        session: &OperatorSession,
        command: gm::Command,
        from: &Origin,
    ) -> Result<ExecutedCommand, FailedCommand> {
        let operator = session.operator();
        let reason = command.reason.trim().to_owned();
        let parsed = Command::parse(command);
        let (name, shown) = match &parsed {
            Ok(command) => (command.name(), command.to_string()),
            Err(error) => ("malformed", format!("malformed command: {error}")),
        };
        let shown_reason =
            if is_plain_line(&reason) { reason.clone() } else { reason.escape_debug().to_string() };
        let audited_reason: String = shown_reason.chars().take(MAX_REASON_CHARS).collect();
        let entry = self
            .audit
            .begin(operator, from, &shown, &audited_reason)
            .await
            .map_err(|error| FailedCommand { audit_entry: None, error: error.into() })?;
        let result = match parsed {
            Ok(command) => self.run_command(session, command, &reason, entry).await,
            Err(error) => Err(error),
        };
        let (verdict, text) = match &result {
            Ok(outcome) => (Verdict::Done, outcome.text().to_owned()),
            Err(error @ CommandError::Denied { .. }) => (Verdict::Denied, error.to_string()),
            Err(error) => (Verdict::Failed, error.to_string()),
        };
        if let Err(error) = self.audit.finish(entry, verdict, &text).await {
            error!(%error, entry, "the result of a command could not be written to the audit");
        }
        metrics::command(name, result.as_ref().err().map_or("done", CommandError::label));
        if result.is_ok() {
            info!(target: "event", event = "operator_command", operator, command = shown, audit = entry, "{text}");
        } else {
            warn!(operator, command = shown, audit = entry, "{text}");
        }
        result
            .map(|outcome| ExecutedCommand { audit_entry: entry, outcome })
            .map_err(|error| FailedCommand { audit_entry: Some(entry), error })
    }

    async fn run_command(
        &self,
        session: &OperatorSession,
        command: Command,
        reason: &str,
        audit_entry: u64,
    ) -> Result<Outcome, CommandError> {
        authorise(session, &command)?;
        if command.changes() && reason.is_empty() {
            return Err(CommandError::NoReason);
        }
        check_reason(reason)?;
        let services = CommandServices {
            peers: &self.peers,
            players: &self.players,
            database: &self.database,
            sign_in: &self.sign_in,
        };
        let context = CommandContext::new(services, session.operator(), reason, audit_entry, unix_millis());
        let executed = tokio::time::timeout(COMMAND_TIMEOUT, command.execute(&context)).await;
        executed.unwrap_or(Err(CommandError::TimedOut))
    }

    /// Deletes ended sessions and expired mutes.
    pub(crate) async fn sweep(&self) {
        let now_ms = unix_millis();
        let swept = async {
            self.sessions.sweep(now_ms).await?;
            mutes::delete_expired(&self.database, now_ms).await
        };
        if let Err(error) = swept.await {
            warn!(%error, "ended sessions and mutes could not be deleted; the next attempt is in a minute");
        }
    }
}

fn check_reason(reason: &str) -> Result<(), CommandError> {
    if reason.chars().count() <= MAX_REASON_CHARS && is_plain_line(reason) {
        return Ok(());
    }
    Err(CommandError::Malformed(format!(
        "reason: must have at most {MAX_REASON_CHARS} characters, in one line and without bidirectional controls"
    )))
}

fn authorise(session: &OperatorSession, command: &Command) -> Result<(), CommandError> {
    let (minimum_role, actual_role) = (command.right().minimum_role(), session.role());
    if actual_role >= minimum_role { Ok(()) } else { Err(CommandError::Denied { minimum_role, actual_role }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_of_several_lines_or_with_bidi_control_is_refused() {
        assert!(check_reason("spam").is_ok());
        for wrong in ["one\ntwo", "a\u{202e}b", &"x".repeat(501)] {
            assert!(matches!(check_reason(wrong), Err(CommandError::Malformed(_))), "{wrong:?}");
        }
    }
}
