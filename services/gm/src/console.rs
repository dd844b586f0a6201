//! The console: what web and gRPC share, and the one way every command goes.

use std::time::Duration;

use shardkeep_rpc::gm;
use shardkeep_store::{Database, audit};
use tracing::{error, info, warn};

use crate::{
    Config,
    clock::now_ms,
    commands::{Command, Desk, Outcome},
    error::CommandError,
    map::MapHub,
    metrics,
    password::Passwords,
    peers::Peers,
    players::Players,
    role::Role,
    sessions::{Sessions, Signed},
    signin::Origin,
    throttle::Throttle,
};

/// Longest a command may take; daemons it calls are given less.
const LONGEST_COMMAND: Duration = Duration::from_secs(15);
const LONGEST_REASON: usize = 500;

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
pub(crate) struct Done {
    /// Number of its entry in the audit.
    pub(crate) audit: u64,
    pub(crate) outcome: Outcome,
}

/// One that was not; the number is missing only when the audit itself could not be written.
pub(crate) struct Refused {
    pub(crate) audit: Option<u64>,
    pub(crate) error: CommandError,
}

impl Console {
    pub(crate) fn new(config: Config, url: String, database: Database, peers: Peers) -> Self {
        Self {
            sessions: Sessions::new(database.clone(), config.idle, config.longest),
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
        signed: &Signed,
        command: gm::Command,
        from: Origin,
    ) -> Result<Done, Refused> {
        let reason = command.reason.trim().to_owned();
        let parsed = Command::parse(command);
        let (name, shown) = match &parsed {
            Ok(command) => (command.name(), command.to_string()),
            Err(error) => ("malformed", format!("malformed command: {error}")),
        };
        let begun = audit::Begun {
            at_ms: now_ms(),
            operator: signed.operator.clone(),
            origin: from.to_string(),
            command: shown.clone(),
            reason: reason.chars().take(LONGEST_REASON).collect(),
        };
        let id = audit::begin(&self.database, &begun)
            .await
            .map_err(|error| Refused { audit: None, error: error.into() })?;
        let result = match parsed {
            Ok(command) => self.carry_out(signed, command, reason, id).await,
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
        let operator = signed.operator.as_str();
        if result.is_ok() {
            info!(target: "event", event = "operator_command", operator, command = shown, audit = id, "{text}");
        } else {
            warn!(operator, command = shown, audit = id, "{text}");
        }
        result.map(|outcome| Done { audit: id, outcome }).map_err(|error| Refused { audit: Some(id), error })
    }

    async fn carry_out(
        &self,
        signed: &Signed,
        command: Command,
        reason: String,
        audit: u64,
    ) -> Result<Outcome, CommandError> {
        authorise(signed, &command)?;
        if command.changes() && reason.is_empty() {
            return Err(CommandError::NoReason);
        }
        if reason.chars().count() > LONGEST_REASON {
            return Err(CommandError::Malformed(format!("a reason has at most {LONGEST_REASON} characters")));
        }
        let desk =
            Desk { console: self, operator: &signed.operator, reason: &reason, audit, now_ms: now_ms() };
        tokio::time::timeout(LONGEST_COMMAND, command.execute(&desk)).await.unwrap_or(Err(CommandError::Late))
    }

    pub(crate) async fn sweep(&self) {
        if let Err(error) = self.sessions.sweep(now_ms()).await {
            warn!(%error, "old sessions are not swept");
        }
    }
}

fn authorise(signed: &Signed, command: &Command) -> Result<(), CommandError> {
    let needs = command.right().needs();
    // Who came by a link has no role yet until a password is set.
    let has = if signed.by_link { Role::Viewer } else { signed.role };
    if has >= needs { Ok(()) } else { Err(CommandError::Denied { needs, has }) }
}
