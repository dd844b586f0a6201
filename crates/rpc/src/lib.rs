//! The gRPC interfaces between daemons: code generated from `proto/`, and conversions between its messages and
//! [`shardkeep_types`]. gRPC types stay at the edges; other code uses [`shardkeep_types`].

pub mod batch;
pub mod batched_call;
mod convert;
pub mod fields;
mod masked;
mod presence_parts;
mod reason;

pub use convert::{Malformed, session_id};
pub use presence_parts::presence_parts;
pub use reason::{reason, with_reason};
pub use tonic;

// Generated modules name each other by package path (`super::super::v1`), so each package keeps its own nest.
#[allow(unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    pub mod shardkeep {
        pub mod v1 {
            tonic::include_proto!("shardkeep.v1");
        }
        macro_rules! service {
            ($name:ident, $package:literal) => {
                pub mod $name {
                    pub mod v1 {
                        tonic::include_proto!($package);
                    }
                }
            };
        }
        service!(accounts, "shardkeep.accounts.v1");
        service!(ai, "shardkeep.ai.v1");
        service!(billing, "shardkeep.billing.v1");
        service!(central, "shardkeep.central.v1");
        service!(chat, "shardkeep.chat.v1");
        service!(control, "shardkeep.control.v1");
        service!(dbcache, "shardkeep.dbcache.v1");
        service!(dns, "shardkeep.dns.v1");
        service!(gateway, "shardkeep.gateway.v1");
        service!(gm, "shardkeep.gm.v1");
        service!(link, "shardkeep.link.v1");
        service!(logs, "shardkeep.logs.v1");
        service!(registry, "shardkeep.registry.v1");
        service!(world, "shardkeep.world.v1");
        service!(zone, "shardkeep.zone.v1");
    }
}

pub use generated::shardkeep::{
    accounts::v1 as accounts, ai::v1 as ai, billing::v1 as billing, central::v1 as central, chat::v1 as chat,
    control::v1 as control, dbcache::v1 as dbcache, dns::v1 as dns, gateway::v1 as gateway, gm::v1 as gm,
    link::v1 as link, logs::v1 as logs, registry::v1 as registry, v1 as common, world::v1 as world,
    zone::v1 as zone,
};
