//! After the welcome: the player looks at the world list and selects, as often as they like; each selection moves
//! one ticket to a gateway and voids the one before.

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
    gathered::Failed,
    metrics,
    presence::Lease,
    random,
    worlds::{self, Viewer},
};

pub(crate) struct WorldSelect {
    account: AccountId,
    name: AccountName,
    generation: Generation,
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

impl WorldSelect {
    pub(crate) fn new(
        account: Raised,
        name: AccountName,
        chain: Chain,
        viewer: Viewer,
        lease: Option<Lease>,
    ) -> Self {
        let Raised { id: account, generation } = account;
        Self { account, name, generation, chain, viewer, lease, unused: None, offered: None, selected: false }
    }

    pub(crate) fn name(&self) -> &AccountName {
        &self.name
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
        let Some((gateway, generation)) = self.place(door, &ticket, world).await else {
            self.unused = Some(ticket);
            return Err(LoginError::NoGateway);
        };
        let offer = GatewayOffer {
            gateway: gateway.client_address.clone(),
            ticket_index: ticket.index,
            ticket_lives_ms: door.ticket_lives_ms(),
        };
        self.offered = Some((gateway, ticket.id));
        self.selected = true;
        // A ban or another login may have come between. Gateways drop what they hold when they are told of it; a ticket
        // that reached one after that is dropped here, because the new generation was in the store before.
        if generation? != Some(self.generation) {
            return Err(self.passed(door).await?);
        }
        shardkeep_daemon::event!(
            "world_selected",
            account = self.account.0,
            world,
            gateway = offer.gateway.as_str()
        );
        Ok(offer)
    }

    /// The gateway that has the ticket now, and the account's generation since.
    async fn place(
        &self,
        door: &Door,
        ticket: &Ticket,
        world: u32,
    ) -> Option<(Instance, Result<Option<Generation>, Failed>)> {
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
                Ok(generation) => return Some((gateway, generation)),
                Err(status) => {
                    warn!(gateway = gateway.id.name, %status, "does not admit");
                    // It may have it all the same: the answer can have been lost.
                    door.gateways.revoke_ticket(&gateway, ticket.id).await;
                }
            }
        }
        None
    }

    /// This connection's generation has passed: its ticket is dropped. Says why.
    async fn passed(&mut self, door: &Door) -> Result<LoginError, LoginError> {
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
