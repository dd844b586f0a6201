//! The opcode table: name, kind, sender, phases, size, rate and route. A server checks every message against this
//! table before it reads the payload.

use shardkeep_types::BackendKind;

use crate::message::Kind;

mod table;

pub use table::*;

/// Phase of a connection. It decides which opcodes the client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Login server, no message received yet.
    LoginNew,
    LoginChallenged,
    LoginVerified,
    /// Login server: the password is proved, and a second-factor code is required.
    LoginCode,
    /// Login server: authenticated, the world list is open.
    LoginWelcome,
    /// Gateway, no message received yet.
    GatewayNew,
    /// The gateway has sent `Attached`. The first sealed record must contain `Confirm`.
    GatewayAttached,
    Session,
    /// Login server, update service: the connection carries nothing else.
    Update,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoginNew => "login_new",
            Self::LoginChallenged => "login_challenged",
            Self::LoginVerified => "login_verified",
            Self::LoginCode => "login_code",
            Self::LoginWelcome => "login_welcome",
            Self::GatewayNew => "gateway_new",
            Self::GatewayAttached => "gateway_attached",
            Self::Session => "session",
            Self::Update => "update",
        }
    }
}

/// A set of phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases(u16);

impl Phases {
    pub const fn of(phases: &[Phase]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < phases.len() {
            bits |= 1 << phases[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, phase: Phase) -> bool {
        self.0 & 1 << phase as u8 != 0
    }
}

/// Sender of an opcode's messages. A reply to a client's request always comes from the server, so replies are not
/// listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
    Both,
}

/// Receiver of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The connection layer of either server.
    Transport,
    Login,
    Gateway,
    /// The backend of this kind that the session is bound to.
    Backend(BackendKind),
}

/// Messages per second and burst. Opcodes with the same bucket share one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub bucket: Bucket,
    pub per_second: u32,
    pub burst: u32,
}

/// Rate-limit buckets of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bucket {
    Ack,
    KeyUpdate,
    Ping,
    Pong,
    Login,
    Logout,
    Move,
    Zone,
    Chat,
    World,
}

impl Bucket {
    pub const COUNT: usize = Self::World as usize + 1;
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub opcode: u16,
    pub name: &'static str,
    /// Kind of the message. A reply has the opcode of its request.
    pub kind: Kind,
    pub sender: Sender,
    /// Phases in which a client may send it.
    pub phases: Phases,
    /// Largest payload from a client, in bytes.
    pub max_payload: usize,
    /// `None` means no rate limit: the phases allow it once, it waits for answers, or a client may not send it.
    pub rate: Option<Rate>,
    pub route: Route,
}

/// A client message that the table forbids. Each violation is a strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("opcode {0:#06x} does not exist")]
    UnknownOpcode(u16),
    #[error("{name} is not allowed in phase {}", phase.as_str())]
    OutOfPhase { name: &'static str, phase: Phase },
    #[error("{name} is not a {}", kind.as_str())]
    WrongKind { name: &'static str, kind: Kind },
    #[error("{name} with a payload of {size} bytes; the limit is {limit}")]
    TooLarge { name: &'static str, size: usize, limit: usize },
    #[error("{name} exceeds its rate limit")]
    TooFast { name: &'static str, retry_after: std::time::Duration },
}

impl Violation {
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownOpcode(_) => "opcode_unknown",
            Self::OutOfPhase { .. } => "opcode_out_of_phase",
            Self::WrongKind { .. } => "opcode_wrong_kind",
            Self::TooLarge { .. } => "payload_too_large",
            Self::TooFast { .. } => "too_fast",
        }
    }
}

/// The row of an opcode below [`crate::range::FIRST_STUDIO`].
pub fn lookup(opcode: u16) -> Option<&'static Rule> {
    RULES.binary_search_by_key(&opcode, |rule| rule.opcode).ok().map(|at| &RULES[at])
}

/// Name for logs and metrics.
pub fn name(opcode: u16) -> &'static str {
    lookup(opcode).map_or("unknown", |rule| rule.name)
}

/// Checks everything about a client message except its rate.
pub fn check(phase: Phase, opcode: u16, kind: Kind, payload: usize) -> Result<&'static Rule, Violation> {
    let rule = lookup(opcode).ok_or(Violation::UnknownOpcode(opcode))?;
    let name = rule.name;
    if rule.sender == Sender::Server || !rule.phases.contains(phase) {
        return Err(Violation::OutOfPhase { name, phase });
    }
    if rule.kind != kind {
        return Err(Violation::WrongKind { name, kind });
    }
    if payload > rule.max_payload {
        return Err(Violation::TooLarge { name, size: payload, limit: rule.max_payload });
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted_with_unique_names() {
        assert!(RULES.is_sorted_by(|a, b| a.opcode < b.opcode));
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn rules_sharing_a_bucket_share_its_rate() {
        for a in RULES.iter().filter_map(|rule| rule.rate) {
            for b in RULES.iter().filter_map(|rule| rule.rate).filter(|b| b.bucket == a.bucket) {
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn protocol_page_matches_rules() {
        let page = include_str!("../../../docs/protocol.md");
        let section = page.split("## 13. Opcodes").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| 0x") && !line.contains("0x8000"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), RULES.len());
        for row in rows {
            let opcode = u16::from_str_radix(row[1].trim_start_matches("0x"), 16).unwrap();
            let rule = lookup(opcode).unwrap();
            assert_eq!(rule.name, row[2]);
            assert!(row[3].starts_with(rule.kind.as_str()), "{row:?}");
            let arrow = match rule.sender {
                Sender::Client => "→",
                Sender::Server => "←",
                Sender::Both => "↔",
            };
            assert!(row[3].contains(arrow), "{row:?}");
            if rule.sender != Sender::Server {
                assert_eq!(rule.max_payload.to_string(), row[6].replace(',', ""), "{row:?}");
            }
        }
    }

    #[test]
    fn check_reports_violations_in_order() {
        use Violation::*;
        let session = |opcode, kind, size| check(Phase::Session, opcode, kind, size);
        assert_eq!(session(0x7777, Kind::Event, 0), Err(UnknownOpcode(0x7777)));
        assert_eq!(
            session(HELLO, Kind::Request, 1),
            Err(OutOfPhase { name: "Hello", phase: Phase::Session })
        );
        assert_eq!(session(CELL, Kind::State, 1), Err(OutOfPhase { name: "Cell", phase: Phase::Session }));
        assert_eq!(session(MOVE, Kind::Event, 9), Err(WrongKind { name: "Move", kind: Kind::Event }));
        assert_eq!(session(MOVE, Kind::State, 10), Err(TooLarge { name: "Move", size: 10, limit: 9 }));
        assert_eq!(
            session(MOVE, Kind::State, 9).map(|rule| rule.route),
            Ok(Route::Backend(BackendKind::ZONE))
        );
        assert!(check(Phase::GatewayNew, MOVE, Kind::State, 9).is_err());
        assert!(check(Phase::GatewayNew, ATTACH, Kind::Request, 120).is_ok());
        assert!(check(Phase::GatewayAttached, PING, Kind::Event, 2).is_err());
    }
}
