//! The settings of a client: deployment, DNS server, lanes and timeouts.

use std::{net::SocketAddr, time::Duration};

use shardkeep_auth::srp::Group;
use shardkeep_lanes::{Connector, Lane};
use shardkeep_wire::{
    preface::{Preface, Service, deployment_tag},
    seal::Suite,
};

use crate::dns::Resolver;

/// Shared by all connections of a client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tag of the deployment's name.
    pub deployment: u32,
    /// Version of the game client: major × 1,000,000 + minor × 1,000 + patch.
    pub client_version: u32,
    /// Offered ciphers, best first.
    pub suites: Vec<Suite>,
    /// Lanes to try, best first. A session changes lanes as it has to.
    pub lanes: Vec<Lane>,
    /// Makes the connections, and knows whom to trust.
    pub connector: Connector,
    /// Groups of SRP that the client calculates in. A server takes the account's.
    pub groups: Vec<Group>,
    /// Offer a post-quantum key share at login.
    pub key_share: bool,
    /// Where names are resolved; `None`: by the operating system, without SRV.
    pub dns: Option<Resolver>,
    pub timing: Timing,
}

#[derive(Debug, Clone)]
pub struct Timing {
    /// For one connection, before anything is said.
    pub connect: Duration,
    /// From connection to the end of the handshake.
    pub handshake: Duration,
    /// One attempt to resume, connection and handshake together.
    pub resume: Duration,
    /// Pause between rounds of attempts: doubles from the first to the second.
    pub pause: (Duration, Duration),
    /// A session counts as lost after all gateways have not known it for this long. A world that has just restarted
    /// needs a moment until gateways announce its sessions.
    pub unknown_session_timeout: Duration,
    /// Default time limit for the reply to a request.
    pub reply: Duration,
    /// A `Ping` is sent when nothing else was sent for this long.
    pub ping: Duration,
    /// A connection this long without a byte is dead.
    pub idle_timeout: Duration,
    /// Age at which a key is replaced.
    pub key_age: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(15),
            resume: Duration::from_secs(3),
            pause: (Duration::from_millis(100), Duration::from_secs(3)),
            unknown_session_timeout: Duration::from_secs(4),
            reply: Duration::from_secs(10),
            ping: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            key_age: Duration::from_secs(3_600),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deployment: deployment_tag("dev"),
            client_version: 1_000_000,
            suites: Suite::ALL.to_vec(),
            lanes: vec![Lane::Tcp],
            connector: Connector::default(),
            groups: Group::ALL.to_vec(),
            key_share: true,
            dns: None,
            timing: Timing::default(),
        }
    }
}

impl Config {
    /// Asks this DNS server for every name.
    pub fn with_dns(server: SocketAddr) -> Self {
        Self { dns: Some(Resolver::new(server)), ..Self::default() }
    }

    #[must_use]
    pub fn deployment(mut self, name: &str) -> Self {
        self.deployment = deployment_tag(name);
        self
    }

    pub(crate) fn preface(&self, service: Service) -> Preface {
        Preface::new(service, self.deployment)
    }

    pub(crate) fn suite_numbers(&self) -> Vec<i32> {
        self.suites.iter().map(|suite| suite.number()).collect()
    }
}
