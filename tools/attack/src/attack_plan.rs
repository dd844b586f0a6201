//! What the attackers' process is told, and what it reports: one JSON document each way.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{loopback::Loopback, tally::Counts};

/// What is done to the cluster's doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Connections from a crowd that say nothing, or hang up at once
    ConnectFlood,
    /// A preface, or a Hello as well, and then silence
    HalfOpen,
    /// Sessions and DNS connections that ask and ask, and never read
    SlowReaders,
    /// A byte at a time
    SlowWriters,
    /// What is no protocol of ours, from the first byte or after the preface
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
    /// A session over QUIC that walks about, and never reads
    ClosedWindows,
    /// Packets that begin as QUIC's do, and go on with noise
    QuicNoise,
    /// WebSockets that stop half-way, or go on with nonsense
    Upgrades,
    /// Well-formed DNS queries, by the burst
    DnsFlood,
    /// DNS packets that are bent, cut, or in loops
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
        Self::DnsFlood,
        Self::DnsMalformed,
    ];

    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Somebody's key to the cluster.
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
    /// Names of the honest.
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
