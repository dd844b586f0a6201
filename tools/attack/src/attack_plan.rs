//! The plan for the attackers' process and its report: one JSON document each.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{loopback::Loopback, tally::Counts};

/// The kinds of attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Connections from many addresses that send nothing, or close at once
    ConnectFlood,
    /// A preface, or a Hello as well, and then silence
    HalfOpen,
    /// Sessions and DNS connections that send requests and never read
    SlowReaders,
    /// A byte at a time
    SlowWriters,
    /// Bytes of no protocol of the cluster, at once or after the preface
    Garbage,
    /// A recorded Attach, Resume, Proof or sealed record, sent again
    Replays,
    /// Every opcode where it does not belong
    OutOfPhase,
    /// Attach and Resume with made-up ids and proofs
    TicketGuessing,
    /// Whether the answers, or their time, tell which accounts exist
    AccountProbing,
    /// The largest lengths, lies about lengths, and the most messages in a record
    SizeBombs,
    /// Wrong passwords from everywhere, for the accounts of those who play
    WrongPasswords,
    /// A session over QUIC that walks and never reads
    ClosedWindows,
    /// Packets that begin like QUIC's and continue with noise
    QuicNoise,
    /// WebSockets that stop half-way, or continue with nonsense
    Upgrades,
    /// HTTP requests to the console and the admin ports, one byte at a time
    SlowHttp,
    /// Bursts of well-formed DNS queries
    DnsFlood,
    /// DNS packets that are malformed, truncated or contain loops
    DnsMalformed,
}

impl Attack {
    pub const ALL: &[Self] = &[
        Self::ConnectFlood,
        Self::HalfOpen,
        Self::SlowReaders,
        Self::SlowWriters,
        Self::Garbage,
        Self::Replays,
        Self::OutOfPhase,
        Self::TicketGuessing,
        Self::AccountProbing,
        Self::SizeBombs,
        Self::WrongPasswords,
        Self::ClosedWindows,
        Self::QuicNoise,
        Self::Upgrades,
        Self::SlowHttp,
        Self::DnsFlood,
        Self::DnsMalformed,
    ];

    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// An account and its password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub password: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct AttackPlan {
    pub dns: Loopback,
    pub login: Vec<Loopback>,
    pub gateways: Vec<Loopback>,
    /// The console and the admin ports.
    pub http: Vec<Loopback>,
    pub zone: String,
    pub deployment: String,
    pub world: u32,
    pub attacks: Vec<Attack>,
    pub seconds: u64,
    /// Attempts a second of each attack.
    pub rate: u32,
    /// Connections that each attack keeps open at once.
    pub open: usize,
    /// Share of one core that all attacks together may use.
    pub cpu: f64,
    /// The attackers' own, for attacks from inside.
    pub accounts: Vec<Account>,
    /// Accounts of the honest players.
    pub victims: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub attacks: BTreeMap<Attack, Counts>,
    /// Mean share of one core that the attackers used.
    pub cpu: f64,
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_has_a_name() {
        let names: Vec<String> = Attack::ALL.iter().map(|attack| attack.name()).collect();
        assert_eq!(Attack::value_variants().len(), names.len());
        assert!(names.iter().all(|name| !name.is_empty()));
    }
}
