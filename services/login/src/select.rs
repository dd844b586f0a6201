//! After the welcome: the player looks at the world list and selects, as often as they like; each selection moves
//! one ticket to a gateway and voids the one before.

use std::net::IpAddr;

use shardkeep_auth::{
    AccountName,
    ticket::{Chain, Ticket},
};
use shardkeep_cluster::Instance;
use shardkeep_rpc::gateway::Admission;
use shardkeep_store::accounts::{self, Raised};
use shardkeep_types::{AccountId, Generation, TicketId};
use shardkeep_wire::payload::{GatewayOffer, WorldList};
use tracing::warn;

use crate::{
    LoginError,
    door::Door,
    floors::Floor,
    gateways::Refused,
    gathered::Failed,
    metrics,
    presence::Lease,
    random,
    worlds::{self, Viewer},
};

pub(crate) struct WorldSelect {
    account: AccountId,
    name: AccountName,
    /// Of the client.
    address: IpAddr,
    generation: Generation,
    /// Tells when that has passed.
    floor: Floor,
    chain: Chain,
    viewer: Viewer,
    /// Keeps others out, where the settings say so.
    lease: Option<Lease>,
    /// Taken from the chain, but no gateway would have it: an answer without an offer uses no ticket.
    unused: Option<Ticket>,
    offered: Option<(Instance, TicketId)>,
    /// A gateway has had a ticket of this connection.
    selected: bool,
}

/// Who has logged in.
pub(crate) struct Visitor {
    pub(crate) account: Raised,
    pub(crate) name: AccountName,
    pub(crate) address: IpAddr,
    pub(crate) floor: Floor,
    pub(crate) viewer: Viewer,
}

impl WorldSelect {
    pub(crate) fn new(visitor: Visitor, chain: Chain, lease: Option<Lease>) -> Self {
        let Visitor { account: Raised { id: account, generation }, name, address, floor, viewer } = visitor;
        let (unused, offered, selected) = (None, None, false);
        Self { account, name, address, generation, floor, chain, viewer, lease, unused, offered, selected }
    }

    pub(crate) fn name(&self) -> &AccountName {
        &self.name
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// Under which generation this connection acts.
    pub(crate) fn raised(&self) -> Raised {
        Raised { id: self.account, generation: self.generation }
    }

    /// The player has raised the generation; this connection goes on under it. `None`: somebody else had before.
    pub(crate) async fn go_on_as(
        &mut self,
        door: &Door,
        raised: Option<Raised>,
    ) -> Result<Raised, LoginError> {
        let Some(raised) = raised else {
            return Err(self.passed(door).await?);
        };
        self.generation = raised.generation;
        if let Some(lease) = &self.lease {
            lease.pass_on(raised.generation);
        }
        Ok(raised)
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// Waits until this connection's generation has passed, wherever that happens.
    pub(crate) async fn outlived(&mut self) {
        self.floor.passes(self.generation).await;
    }

    /// The store's own word on whether this connection's generation is still the last one.
    pub(crate) async fn is_current(&self, door: &Door) -> Result<bool, LoginError> {
        let found = accounts::generations(&door.database, &[self.account]).await?;
        Ok(found == [Some(self.generation)])
    }

    /// Whether the account can play, and so make characters, while this connection stands.
    pub(crate) fn plays(&self) -> bool {
        self.selected
    }

    /// Counts the account's characters again; true if there are more or fewer.
    pub(crate) async fn recount(&mut self, door: &Door) -> bool {
        let Some(characters) = door.known.characters_again(self.account).await else { return false };
        let changed = characters != self.viewer.characters;
        self.viewer.characters = characters;
        changed
    }

    /// Moves the next ticket to the best gateway.
    pub(crate) async fn select(
        &mut self,
        door: &Door,
        worlds: &WorldList,
        world: u32,
    ) -> Result<GatewayOffer, LoginError> {
        let offer = self.offer(door, worlds, world).await;
        metrics::offer(offer.as_ref().map_or_else(LoginError::label, |_| "ok"));
        offer
    }

    async fn offer(
        &mut self,
        door: &Door,
        worlds: &WorldList,
        world: u32,
    ) -> Result<GatewayOffer, LoginError> {
        let found = worlds.worlds.iter().find(|candidate| candidate.id == world);
        let found = found.ok_or(LoginError::NoWorld(world))?;
        if !worlds::may_enter(found, &self.viewer) {
            // In the shared list `may_enter` is false of worlds that nobody leads, and true of closed ones.
            return Err(if found.may_enter {
                LoginError::WorldClosed(found.note.clone())
            } else {
                LoginError::WorldAway("this world is not open now")
            });
        }
        if let Some((gateway, ticket)) = self.offered.take() {
            door.gateways.revoke_ticket(&gateway, ticket).await;
        }
        let ticket = self.unused.take().unwrap_or_else(|| self.chain.take());
        let (id, index) = (ticket.id, ticket.index);
        let placed = self.place(door, &ticket, world).await;
        // Until there is an offer.
        self.unused = Some(ticket);
        let (gateway, generation) = match placed {
            Placed::At(gateway, Ok(generation)) => (gateway, generation),
            Placed::At(gateway, Err(error)) => {
                door.gateways.revoke_ticket(&gateway, id).await;
                return Err(error.into());
            }
            Placed::Nowhere => return Err(LoginError::NoGateway),
            Placed::Outdated => return Err(self.passed(door).await?),
        };
        let offer = GatewayOffer {
            gateway: gateway.client_address.clone(),
            ticket_index: index,
            ticket_lives_ms: door.ticket_lives_ms(),
        };
        self.offered = Some((gateway, id));
        // A ban or another login may have come between. Gateways drop what they hold when they are told of it; a ticket
        // that reached one after that is dropped here, because the new generation was in the store before.
        if generation != Some(self.generation) {
            return Err(self.passed(door).await?);
        }
        self.unused = None;
        self.selected = true;
        shardkeep_daemon::event!(
            "world_selected",
            account = self.account.0,
            world,
            gateway = offer.gateway.as_str()
        );
        Ok(offer)
    }

    async fn place(&self, door: &Door, ticket: &Ticket, world: u32) -> Placed {
        for gateway in door.gateways.candidates() {
            let admission = Admission {
                ticket_id: ticket.id.as_bytes().to_vec(),
                ticket_key: ticket.key.expose().to_vec(),
                account: self.account.0,
                account_name: self.name.to_string(),
                generation: self.generation.0,
                world,
                lives_ms: door.ticket_lives_ms(),
            };
            match door.gateways.admit(&gateway, admission).await {
                Ok(generation) => return Placed::At(gateway, generation),
                // The others have heard of it too, or will.
                Err(Refused::Outdated) => return Placed::Outdated,
                Err(Refused::Away(status)) => {
                    warn!(gateway = gateway.id.name, %status, "does not admit");
                    // It may have it all the same: the answer can have been lost.
                    door.gateways.revoke_ticket(&gateway, ticket.id).await;
                }
            }
        }
        Placed::Nowhere
    }

    /// This connection's generation has passed: its ticket is dropped. Says why.
    pub(crate) async fn passed(&mut self, door: &Door) -> Result<LoginError, LoginError> {
        if let Some((gateway, ticket)) = self.offered.take() {
            door.gateways.revoke_ticket(&gateway, ticket).await;
        }
        let Some(account) = accounts::by_id(&door.database, self.account).await? else {
            return Ok(LoginError::Displaced);
        };
        let ban = account.effective_ban();
        if ban.until_ms > random::unix_millis() {
            return Ok(LoginError::Banned { until_ms: ban.until_ms, reason: ban.reason });
        }
        Ok(LoginError::Displaced)
    }
}

/// What became of a ticket.
enum Placed {
    /// This gateway has it, and the account had this generation since.
    At(Instance, Result<Option<Generation>, Failed>),
    Nowhere,
    /// Gateways know of a higher generation of the account.
    Outdated,
}
