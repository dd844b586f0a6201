//! Links carry everything between gateways and backends (`proto/link.proto`). A gateway dials every backend that the
//! registry lists and holds a [`GatewayLink`] to each. A backend serves all its links from one [`LinkHub`].
//!
//! Both ends run the same pure machine (`pipe`, over `ring`): batches are numbered, acknowledged, and sent again
//! after a reset from a bounded ring. If the ring no longer holds a batch, the link starts anew (`fresh`), and both
//! ends tell each other their state again.
//!
//! # What a backend does on each [`LinkEvent`]
//!
//! | event | meaning | to do |
//! | --- | --- | --- |
//! | `Up { fresh: true }` | the backend knows nothing of this gateway: no watches, no subscriptions | forget its sessions' subscriptions; the gateway announces its sessions right after |
//! | `Up { fresh: false }` | the link continues where it broke; nothing is lost | nothing |
//! | `Down` | the gateway has been away for longer than the grace time | treat its sessions as link-dead until another gateway announces them |
//! | `Session(Joined)` | the session is bound to this backend; `LinkDead` follows if its client is away | store its gateway and epoch, subscribe it to its groups, send state that is not in groups |
//! | `Session(Resumed)` | the client is back | send state that is not in groups |
//! | `Session(LinkDead)` | the client is away | keep the session without its client |
//! | `Session(Left)` | the session has ended | remove it |
//! | `Bound` | as `Joined`, after a `Bind` to this instance, or from a new gateway | store gateway and epoch, subscribe, then call [`LinkHub::ready`]; only then do the client's messages arrive |
//! | `Deliver` | messages of the client | handle them |
//! | `Watched` | this gateway has a first subscriber | if the group is owned here, publish a keyframe |
//! | `KeyframeWanted` | a message of the group was dropped on a full link | if the group is owned here, publish a keyframe |
//!
//! The hub refuses events of a session with a lower session epoch than the highest seen: they come from a gateway
//! that stalled while another claimed its sessions.
//!
//! When a session moves to another gateway, the hub keeps messages to the session and sends them to the next gateway
//! (`fences`). The backend need not know of the move.

mod codec;
mod convert;
mod dial;
mod event;
mod fences;
mod gateway;
mod hub;
mod message;
mod metrics;
mod outbound;
mod pipe;
mod ring;
mod serve;
mod session_owners;
#[cfg(test)]
mod tests;

pub use dial::NodeDialer;
pub use event::{BackendSpec, GatewayId, LinkEvent, Route};
pub use gateway::{BackendFrames, BackendInfo, Dial, GatewayLink, GatewayStream, LinkHandler};
pub use hub::LinkHub;
pub use message::{
    BackendItem, Bound, ClientMessage, ClientView, Fence, GatewayItem, MessageKind, PublishKind,
    ServerMessage, SessionChange, SessionEvent,
};
pub use metrics::describe;
pub use pipe::{Full, Limits};
