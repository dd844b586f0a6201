//! Membership and communication of daemons: certificates, registration, directories and channels. A service joins
//! once ([`Node::join`]) and serves its gRPC routes through the node ([`Node::serve`]). The node provides live views
//! of the kinds it needs ([`Node::directory`]) and channels to them ([`Node::channel`]).
//!
//! * **Trust**: mutual TLS always. A certificate names kind, instance and world ([`Peer`]). The table in `access.rs`
//!   lists which kind may call which method. Refused peers are logged and counted.
//! * **Membership**: every instance registers with every registry and extends its lease by heartbeats. A registry
//!   reports that an instance is *alive*, never that it is an *owner*.
//! * **Views**: a [`Directory`] merges the lists of all registries, and keeps its last view while none answers.
//! * **Channels**: one per peer and address, never a balanced set: the caller chooses the peer.
//! * **Stores**: replicas that own state check whether others use another store before they serve
//!   ([`Node::ensure_same_store`]).
//! * **Batches**: many small requests to one peer go in few calls ([`RequestBatcher`]).

mod access;
mod advertise;
mod backoff;
mod call_failure;
pub mod certs;
mod control;
mod dialer;
mod directory;
mod guard;
mod identity;
mod incarnation;
mod instance;
mod leases;
mod log_collector;
mod merge;
mod metrics;
mod node;
mod operator;
mod peer;
mod peer_stream;
mod registration;
mod request_batcher;
mod server;
mod store_conflict;

pub use backoff::Backoff;
pub use dialer::Dialer;
pub use directory::Directory;
pub use identity::Identity;
pub use instance::{Instance, Leadership, REGION_ATTRIBUTE, State};
pub use node::Node;
pub use operator::{OperatorName, caller_name, set_operator};
pub use peer::{InvalidPeerCertificate, Peer, PeerCertificate};
pub use request_batcher::{BatchCallError, BatchFuture, BatchPolicy, RequestBatcher};
pub use store_conflict::STORES_ATTRIBUTE;

/// Largest gRPC message between daemons, in bytes: what generated clients and servers set as their limit.
pub const MESSAGE_LIMIT: usize = 4 << 20;
