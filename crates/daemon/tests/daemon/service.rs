//! A daemon that does nothing, or what a test tells it to.

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Daemon, Service, Settings, Validate};
use shardkeep_types::DaemonKind;

pub(crate) struct Idle;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) sessions: u32,
    pub(crate) store: String,
    pub(crate) act: Act,
    pub(crate) listen: Vec<String>,
    pub(crate) title: Option<String>,
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) rate: f64,
}

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    Wait,
    NeverFinish,
    Panic,
    FailTask,
    Fail,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sessions: 10,
            store: "sqlite:var/idle.db".into(),
            act: Act::Wait,
            listen: Vec::new(),
            title: None,
            limits: Limits::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.sessions == 0 {
            return Err("sessions: must be at least 1".into());
        }
        Ok(())
    }
}

impl Service for Idle {
    const KIND: DaemonKind = DaemonKind::Gateway;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        daemon.set_client_address("203.0.113.1:4000");
        match settings.service.act {
            Act::Wait => {}
            Act::NeverFinish => daemon.spawn("work", std::future::pending()),
            Act::Panic => daemon.spawn("work", async { panic!("oh dear") }),
            Act::FailTask => daemon.spawn("work", async { anyhow::bail!("no luck") }),
            Act::Fail => anyhow::bail!("can not even start"),
        }
        daemon.ready();
        daemon.draining().cancelled().await;
        Ok(())
    }
}
