//! The console: what web and gRPC share, and the one way every command goes.

use std::time::Duration;

use shardkeep_rpc::gm;
use shardkeep_store::{Database, audit};
use tracing::{error, info, warn};

use crate::{
    Config,
    clock::now_ms,
    commands::{Command, CommandContext, Outcome},
    error::CommandError,
    map::MapHub,
    metrics,
    password::Passwords,
    peers::Peers,
    players::Players,
    role::Role,
    sessions::{OperatorSession, Sessions},
    signin::Origin,
    throttle::Throttle,
};

/// Longest a command may take; daemons it calls are given less.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REASON_CHARS: usize = 500;

pub(crate) struct Console {
    pub(crate) config: Config,
    /// What operators type, without a slash at the end.
    pub(crate) url: String,
    pub(crate) database: Database,
    pub(crate) peers: Peers,
    pub(crate) players: Players,
    pub(crate) map: MapHub,
    pub(crate) sessions: Sessions,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
}

/// A command that was carried out.
pub(crate) struct ExecutedCommand {
    /// Number of its entry in the audit.
    pub(crate) audit: u64,
    pub(crate) outcome: Outcome,
}

/// One that was not; the number is missing only when the audit itself could not be written.
pub(crate) struct FailedCommand {
    pub(crate) audit: Option<u64>,
    pub(crate) error: CommandError,
}

impl Console {
    pub(crate) fn new(config: Config, url: String, database: Database, peers: Peers) -> Self {
        Self {
            sessions: Sessions::new(database.clone(), config.idle, config.session_lifetime),
            map: MapHub::new(config.map_interval),
            players: Players::default(),
            passwords: Passwords::new(),
            throttle: Throttle::default(),
            config,
            url,
            database,
            peers,
        }
    }

    /// The one way of every command: parse, begin its audit entry, authorise, execute, complete the entry. What
    /// cannot be written down is not done.
    pub(crate) async fn execute(
        &self,
        session: &OperatorSession,
        command: gm::Command,
        from: Origin,
    ) -> Result<ExecutedCommand, FailedCommand> {
        let reason = command.reason.trim().to_owned();
        let parsed = Command::parse(command);
        let (name, shown) = match &parsed {
            Ok(command) => (command.name(), command.to_string()),
            Err(error) => ("malformed", format!("malformed command: {error}")),
        };
        let invocation = audit::Invocation {
            at_ms: now_ms(),
            operator: session.operator.clone(),
            origin: from.to_string(),
            command: shown.clone(),
            reason: reason.chars().take(MAX_REASON_CHARS).collect(),
        };
        let id = audit::begin(&self.database, &invocation)
            .await
            .map_err(|error| FailedCommand { audit: None, error: error.into() })?;
        let result = match parsed {
            Ok(command) => self.run_command(session, command, reason, id).await,
            Err(error) => Err(error),
        };
        let (outcome, text) = match &result {
            Ok(outcome) => ("done", outcome.text.clone()),
            Err(error @ CommandError::Denied { .. }) => ("denied", error.to_string()),
            Err(error) => ("failed", error.to_string()),
        };
        if let Err(error) = audit::finish(&self.database, id, outcome, &text).await {
            error!(%error, id, "the entry of the audit stays without a result");
        }
        let label = result.as_ref().err().map_or("done", CommandError::label);
        metrics::command(name, label);
        let operator = session.operator.as_str();
        if result.is_ok() {
            info!(target: "event", event = "operator_command", operator, command = shown, audit = id, "{text}");
        } else {
            warn!(operator, command = shown, audit = id, "{text}");
        }
        result
            .map(|outcome| ExecutedCommand { audit: id, outcome })
            .map_err(|error| FailedCommand { audit: Some(id), error })
    }

    async fn run_command(
        &self,
        session: &OperatorSession,
        command: Command,
        reason: String,
        audit: u64,
    ) -> Result<Outcome, CommandError> {
        authorise(session, &command)?;
        if command.changes() && reason.is_empty() {
            return Err(CommandError::NoReason);
        }
        if reason.chars().count() > MAX_REASON_CHARS {
            return Err(CommandError::Malformed(format!(
                "a reason has at most {MAX_REASON_CHARS} characters"
            )));
        }
        let context = CommandContext {
            console: self,
            operator: &session.operator,
            reason: &reason,
            audit,
            now_ms: now_ms(),
        };
        tokio::time::timeout(COMMAND_TIMEOUT, command.execute(&context))
            .await
            .unwrap_or(Err(CommandError::TimedOut))
    }

    pub(crate) async fn sweep(&self) {
        if let Err(error) = self.sessions.sweep(now_ms()).await {
            warn!(%error, "old sessions are not swept");
        }
    }
}

fn authorise(session: &OperatorSession, command: &Command) -> Result<(), CommandError> {
    let minimum_role = command.right().minimum_role();
    // Who came by a link has no role yet until a password is set.
    let actual_role = if session.by_link { Role::Viewer } else { session.role };
    if actual_role >= minimum_role { Ok(()) } else { Err(CommandError::Denied { minimum_role, actual_role }) }
}
