//! The table of gRPC methods with the kinds of peers that may call each. A method that is not in the table is refused.
//! A peer of one world may not call a daemon of another world.

use shardkeep_types::DaemonKind::{
    self, Ai, Backend, Billing, Chat, Cli, Dbcache, Dns, Gateway, Gm, Login, Logs, Registry, World, Zone,
};
use shardkeep_types::WorldId;

use crate::Peer;

/// A row of the table. The method `*` stands for all methods of the service that have no earlier row.
struct Rule {
    service: &'static str,
    method: &'static str,
    callers: &'static [DaemonKind],
    effect: Effect,
}

/// Whether a method changes something for players, operators or daemons on behalf of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads, or daemons use it for their own work.
    Ordinary,
    /// The command line may call it only in the name of an operator, and the call is logged as an event.
    Privileged,
}

const fn rule(service: &'static str, method: &'static str, callers: &'static [DaemonKind]) -> Rule {
    Rule { service, method, callers, effect: Effect::Ordinary }
}

const fn privileged(service: &'static str, method: &'static str, callers: &'static [DaemonKind]) -> Rule {
    Rule { service, method, callers, effect: Effect::Privileged }
}

const ALL_KINDS: &[DaemonKind] =
    &[Dns, Login, Registry, Gateway, World, Zone, Ai, Chat, Dbcache, Billing, Gm, Logs, Backend, Cli];
const OPERATORS: &[DaemonKind] = &[Gm, Cli];

const TABLE: &[Rule] = &[
    rule("grpc.health.v1.Health", "*", ALL_KINDS),
    privileged("shardkeep.control.v1.Control", "Drain", OPERATORS),
    privileged("shardkeep.registry.v1.Registry", "Remove", OPERATORS),
    // An instance registers itself only; the registry compares names.
    rule("shardkeep.registry.v1.Registry", "*", ALL_KINDS),
    rule("opentelemetry.proto.collector.logs.v1.LogsService", "Export", ALL_KINDS),
    rule("shardkeep.logs.v1.Logs", "*", OPERATORS),
    rule("shardkeep.link.v1.Link", "Open", &[Gateway]),
    rule("shardkeep.dns.v1.Dns", "ListPools", OPERATORS),
    privileged("shardkeep.dns.v1.Dns", "*", OPERATORS),
    rule("shardkeep.accounts.v1.Accounts", "Show", OPERATORS),
    rule("shardkeep.accounts.v1.Accounts", "List", OPERATORS),
    rule("shardkeep.accounts.v1.Accounts", "Sessions", OPERATORS),
    rule("shardkeep.accounts.v1.Accounts", "ListClosures", OPERATORS),
    rule("shardkeep.accounts.v1.Accounts", "Region", OPERATORS),
    privileged("shardkeep.accounts.v1.Accounts", "*", OPERATORS),
    rule("shardkeep.accounts.v1.Revocations", "Follow", &[Gateway]),
    rule("shardkeep.central.v1.Central", "*", &[Login]),
    rule("shardkeep.gateway.v1.Gateway", "Admit", &[Login]),
    rule("shardkeep.gateway.v1.Gateway", "RevokeTicket", &[Login]),
    rule("shardkeep.gateway.v1.Gateway", "RevokeAccount", &[Login]),
    rule("shardkeep.gateway.v1.Gateway", "MoveSession", &[Gateway]),
    rule("shardkeep.gateway.v1.Gateway", "ListSessions", &[Gm, Cli, Login]),
    rule("shardkeep.gateway.v1.Gateway", "ListCosts", OPERATORS),
    rule("shardkeep.gateway.v1.Gateway", "Kick", &[Gm, Billing]),
    rule("shardkeep.gateway.v1.Gateway", "Announce", &[Gm, Billing]),
    rule("shardkeep.world.v1.World", "OpenSessions", &[Gateway]),
    rule("shardkeep.world.v1.World", "FindSession", &[Gateway]),
    rule("shardkeep.world.v1.World", "ClaimSession", &[Gateway]),
    rule("shardkeep.world.v1.World", "WatchPartition", &[Zone]),
    rule("shardkeep.world.v1.World", "ReportPresence", &[Zone]),
    rule("shardkeep.world.v1.World", "WatchPresence", &[Chat, Gm]),
    rule("shardkeep.world.v1.World", "Kick", &[Gm]),
    rule("shardkeep.world.v1.World", "Teleport", &[Gm]),
    rule("shardkeep.world.v1.World", "Announce", &[Gm]),
    rule("shardkeep.world.v1.World", "ChangeLayout", &[Gm]),
    rule("shardkeep.world.v1.World", "Status", &[Gm, Cli, Login]),
    rule("shardkeep.zone.v1.Zone", "Admit", &[World]),
    rule("shardkeep.zone.v1.Zone", "Evict", &[World]),
    rule("shardkeep.zone.v1.Zone", "Teleport", &[World]),
    rule("shardkeep.zone.v1.Zone", "Offer", &[Zone]),
    rule("shardkeep.zone.v1.Zone", "Settle", &[Zone]),
    rule("shardkeep.zone.v1.Zone", "TakeSnapshot", &[Zone]),
    rule("shardkeep.zone.v1.Zone", "Mirror", &[Zone]),
    rule("shardkeep.zone.v1.Zone", "Peer", &[Zone]),
    rule("shardkeep.zone.v1.Zone", "Observe", &[Gm]),
    rule("shardkeep.ai.v1.Ai", "Think", &[Zone]),
    rule("shardkeep.chat.v1.Chat", "*", &[Gm]),
    rule("shardkeep.dbcache.v1.DbCache", "ListCharacters", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "CountCharacters", &[Login]),
    rule("shardkeep.dbcache.v1.DbCache", "FindCharacters", &[Gm]),
    rule("shardkeep.dbcache.v1.DbCache", "CreateCharacter", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "Claim", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "Reown", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "Lead", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "LoadLayout", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "StoreLayout", &[World]),
    rule("shardkeep.dbcache.v1.DbCache", "Transfer", &[Zone]),
    rule("shardkeep.dbcache.v1.DbCache", "Release", &[Zone, World]),
    rule("shardkeep.dbcache.v1.DbCache", "Load", &[Zone, World]),
    rule("shardkeep.dbcache.v1.DbCache", "SaveSoft", &[Zone]),
    rule("shardkeep.dbcache.v1.DbCache", "Commit", &[Zone]),
    rule("shardkeep.dbcache.v1.DbCache", "LoadGround", &[Zone]),
    rule("shardkeep.dbcache.v1.DbCache", "LookupAction", &[Zone]),
    rule("shardkeep.dbcache.v1.DbCache", "CheckConservation", OPERATORS),
    rule("shardkeep.billing.v1.Billing", "Report", &[Gateway]),
    rule("shardkeep.billing.v1.Billing", "Show", &[Gm, Cli]),
    rule("shardkeep.billing.v1.Billing", "TimeLeft", &[Login]),
    rule("shardkeep.billing.v1.Billing", "FollowPrepaid", &[Login]),
    rule("shardkeep.billing.v1.Billing", "Credit", &[Gm]),
    // It signs in without a password.
    privileged("shardkeep.gm.v1.Gm", "OneTimeLink", &[Cli]),
    // Calls to the console carry the token of an operator's session, and the console audits them.
    rule("shardkeep.gm.v1.Gm", "*", &[Cli]),
];

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no such method")]
    UnknownMethod,
    #[error("this kind of peer may not call this method")]
    Kind,
    #[error("the peer belongs to another world")]
    World,
}

impl Refusal {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::UnknownMethod => "unknown_method",
            Self::Kind => "kind",
            Self::World => "world",
        }
    }
}

/// Decides about a call by its path, `/package.Service/Method`. Returns the effect of the method.
pub(crate) fn authorize(path: &str, peer: &Peer, own_world: WorldId) -> Result<Effect, Refusal> {
    let (service, method) =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or(Refusal::UnknownMethod)?;
    let rule = TABLE
        .iter()
        .find(|rule| rule.service == service && (rule.method == method || rule.method == "*"))
        .ok_or(Refusal::UnknownMethod)?;
    if !rule.callers.contains(&peer.kind) {
        return Err(Refusal::Kind);
    }
    if peer.world.0 != 0 && own_world.0 != 0 && peer.world != own_world {
        return Err(Refusal::World);
    }
    Ok(rule.effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(kind: DaemonKind, world: u32) -> Peer {
        Peer::new(kind, "one", WorldId(world))
    }

    #[test]
    fn access_table_decides_which_kinds_may_call() {
        let authorize = |path, kind| authorize(path, &peer(kind, 0), WorldId(1));
        assert_eq!(authorize("/shardkeep.dbcache.v1.DbCache/Commit", Zone), Ok(Effect::Ordinary));
        assert_eq!(authorize("/shardkeep.dbcache.v1.DbCache/Commit", Gateway), Err(Refusal::Kind));
        assert_eq!(authorize("/shardkeep.registry.v1.Registry/Watch", Dns), Ok(Effect::Ordinary));
        assert_eq!(authorize("/shardkeep.registry.v1.Registry/Remove", Dns), Err(Refusal::Kind));
        assert_eq!(authorize("/shardkeep.nothing.v1.No/Thing", Gm), Err(Refusal::UnknownMethod));
        assert_eq!(authorize("nonsense", Gm), Err(Refusal::UnknownMethod));
        assert_eq!(authorize("/shardkeep.accounts.v1.Accounts/Show", Cli), Ok(Effect::Ordinary));
        assert_eq!(authorize("/shardkeep.accounts.v1.Accounts/Ban", Cli), Ok(Effect::Privileged));
    }

    #[test]
    fn peer_of_another_world_is_refused() {
        let path = "/shardkeep.world.v1.World/WatchPartition";
        assert_eq!(authorize(path, &peer(Zone, 1), WorldId(1)), Ok(Effect::Ordinary));
        assert_eq!(authorize(path, &peer(Zone, 2), WorldId(1)), Err(Refusal::World));
    }

    /// A new method must be added here with the kinds that may call it.
    #[test]
    fn every_rpc_method_has_an_access_rule() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let mut methods = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let word_after = |line: &str, keyword: &str| {
                let rest = line.trim().strip_prefix(keyword)?;
                Some(rest.split([' ', '(', ';', '{']).next()?.to_owned())
            };
            let (mut package, mut service) = (String::new(), String::new());
            for line in text.lines() {
                if let Some(name) = word_after(line, "package ") {
                    package = name;
                } else if let Some(name) = word_after(line, "service ") {
                    service = format!("{package}.{name}");
                } else if let Some(method) = word_after(line, "rpc ") {
                    methods += 1;
                    let path = format!("/{service}/{method}");
                    let allowed =
                        ALL_KINDS.iter().any(|kind| authorize(&path, &peer(*kind, 0), WorldId(0)).is_ok());
                    assert!(allowed, "{path}: nobody may call it");
                }
            }
        }
        assert!(methods > 50, "the protocols were not found");
    }
}
