//! Messages between replicas on the bus. They are protobuf, so that replicas of different versions understand each
//! other.

use prost::{Message, Oneof};
use shardkeep_types::{CellId, SpaceId};

/// One message of a replica.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    /// Instance name and incarnation of the replica.
    #[prost(string, tag = "1")]
    pub(crate) origin: String,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    /// Starts at 1 in each incarnation. A repeated message has its first number.
    #[prost(uint64, tag = "3")]
    pub(crate) sequence: u64,
    #[prost(oneof = "ChatEvent", tags = "4, 5")]
    pub(crate) event: Option<ChatEvent>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum ChatEvent {
    #[prost(message, tag = "4")]
    Line(Line),
    #[prost(message, tag = "5")]
    Mutes(MuteList),
}

/// A line, with the data that selects its recipients.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Line {
    /// `Channel` of the client protocol.
    #[prost(int32, tag = "1")]
    pub(crate) channel: i32,
    #[prost(string, tag = "2")]
    pub(crate) from: String,
    #[prost(uint64, tag = "3")]
    pub(crate) from_character: u64,
    #[prost(string, tag = "4")]
    pub(crate) text: String,
    #[prost(uint64, tag = "5")]
    pub(crate) at_ms: u64,
    /// The cell of the speaker.
    #[prost(uint32, tag = "6")]
    pub(crate) space: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) cell_x: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) cell_y: u32,
    #[prost(string, tag = "9")]
    pub(crate) zone: String,
    /// Only for whispers.
    #[prost(string, tag = "10")]
    pub(crate) to: String,
    #[prost(uint64, tag = "11")]
    pub(crate) to_character: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MuteList {
    #[prost(message, repeated, tag = "1")]
    pub(crate) mutes: Vec<Mute>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mute {
    /// Folded by `shardkeep_names::fold`.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// End of the mute in milliseconds since the Unix epoch; 0: not muted.
    #[prost(uint64, tag = "2")]
    pub(crate) until_ms: u64,
    /// When the moderator issued it, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub(crate) issued_ms: u64,
}

impl Line {
    /// `None`: the numbers are not a cell.
    pub(crate) fn cell(&self) -> Option<CellId> {
        Some(CellId {
            space: SpaceId(self.space),
            x: self.cell_x.try_into().ok()?,
            y: self.cell_y.try_into().ok()?,
        })
    }
}
