//! Links: the one way between gateways and backends (`proto/link.proto`). A gateway dials every backend it finds
//! and holds a [`GatewayLink`] to each; a backend serves them all from one [`LinkHub`].
//!
//! Both ends run the same pure machine (`pipe`, over `ring`): numbered batches, acknowledgements, repetition after a
//! reset from a bounded ring. Beyond the ring the link starts anew (`fresh`), and both sides build their view of the
//! other again.
//!
//! # What a backend does on each [`LinkEvent`]
//!
//! | event | meaning | to do |
//! | --- | --- | --- |
//! | `Up { fresh: true }` | nothing of this gateway is known any more: no watches, no subscriptions | forget its sessions' subscriptions; they are announced again right after |
//! | `Up { fresh: false }` | the link goes on where it broke, nothing is lost | nothing |
//! | `Down` | the gateway has been away for longer than the grace | its sessions are link-dead until another gateway announces them |
//! | `Session(Joined)` | the session is bound here (again); `LinkDead` follows if its client is away | remember its gateway and epoch; subscribe it to its groups, send what is not in groups |
//! | `Session(Resumed)` | its client is back | send what is not in groups |
//! | `Session(LinkDead)` | its client is away | keep it, at rest |
//! | `Session(Left)` | it is over | let it go |
//! | `Bound` | as `Joined`, after a `Bind` to this instance, or from a new gateway | take its gateway and epoch, subscribe, then [`LinkHub::ready`]: only then do its inputs flow |
//! | `Deliver` | messages of its client | serve them |
//! | `Watched` | this gateway has a first subscriber | owner of the group: publish a keyframe |
//! | `KeyframeWanted` | something of the group was dropped on a full link | owner of the group: publish a keyframe |
//!
//! Events of a session with a lower session epoch than the highest seen never get here: a gateway that stalled while
//! another claimed its sessions is refused by the hub.
//!
//! When a gateway hands a session to another, the hub keeps what is said to the session meanwhile and says it at the next
//! gateway (`fences`); the backend need not know.

mod convert;
mod decode;
mod dial;
mod encode;
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

pub use dial::{BackendFrames, Dial, NodeDialer};
pub use event::{BackendSpec, GatewayId, LinkEvent, Route};
pub use gateway::{BackendInfo, GatewayLink, GatewayStream, LinkHandler};
pub use hub::LinkHub;
pub use message::{
    BackendItem, Bound, ClientMessage, ClientView, Fence, GatewayItem, MessageKind, PublishKind,
    ServerMessage, SessionChange, SessionEvent,
};
pub use metrics::describe;
pub use pipe::{Full, Limits};
