//! After the welcome: the player looks at the world list and selects, as often as they like; each selection moves
//! one ticket to a gateway and voids the one before.

use std::net::IpAddr;

use shardkeep_auth::{
    AccountName,
    ticket::{Ticket, TicketChain},
};
use shardkeep_cluster::Instance;
use shardkeep_rpc::gateway::Admission;
use shardkeep_store::accounts::{self, AccountGeneration};
use shardkeep_types::{AccountId, Generation, TicketId};
use shardkeep_wire::payload::{GatewayOffer, WorldList};
use tracing::warn;

use crate::{
    LoginError,
    account_batcher::BatchError,
    context::LoginContext,
    gateways::AdmitError,
    generation_watchers::GenerationWatcher,
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
    generation_watcher: GenerationWatcher,
    chain: TicketChain,
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
pub(crate) struct AuthenticatedClient {
    pub(crate) account: AccountGeneration,
    pub(crate) name: AccountName,
    pub(crate) address: IpAddr,
    pub(crate) generation_watcher: GenerationWatcher,
    pub(crate) viewer: Viewer,
}

impl WorldSelect {
    pub(crate) fn new(client: AuthenticatedClient, chain: TicketChain, lease: Option<Lease>) -> Self {
        let AuthenticatedClient {
            account: AccountGeneration { id: account, generation },
            name,
            address,
            generation_watcher,
            viewer,
        } = client;
        let (unused, offered, selected) = (None, None, false);
        Self {
            account,
            name,
            address,
            generation,
            generation_watcher,
            chain,
            viewer,
            lease,
            unused,
            offered,
            selected,
        }
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
    pub(crate) fn account_generation(&self) -> AccountGeneration {
        AccountGeneration { id: self.account, generation: self.generation }
    }

    /// The player has raised the generation; this connection goes on under it. `None`: somebody else had before.
    pub(crate) async fn adopt_generation(
        &mut self,
        context: &LoginContext,
        account_generation: Option<AccountGeneration>,
    ) -> Result<AccountGeneration, LoginError> {
        let Some(account_generation) = account_generation else {
            return Err(self.end_superseded(context).await?);
        };
        self.generation = account_generation.generation;
        if let Some(lease) = &self.lease {
            lease.move_to(account_generation.generation);
        }
        Ok(account_generation)
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// Waits until this connection's generation has passed, wherever that happens.
    pub(crate) async fn superseded(&mut self) {
        self.generation_watcher.wait_above(self.generation).await;
    }

    /// The store's own word on whether this connection's generation is still the last one.
    pub(crate) async fn is_current(&self, context: &LoginContext) -> Result<bool, LoginError> {
        let found = accounts::generations(&context.database, &[self.account]).await?;
        Ok(found == [Some(self.generation)])
    }

    /// Whether the account can play, and so make characters, while this connection stands.
    pub(crate) fn has_selected_world(&self) -> bool {
        self.selected
    }

    /// Counts the account's characters again; true if there are more or fewer.
    pub(crate) async fn recount_characters(&mut self, context: &LoginContext) -> bool {
        let Some(characters) = context.account_details.recount_characters(self.account).await else {
            return false;
        };
        let changed = characters != self.viewer.characters;
        self.viewer.characters = characters;
        changed
    }

    /// Moves the next ticket to the best gateway.
    pub(crate) async fn select(
        &mut self,
        context: &LoginContext,
        worlds: &WorldList,
        world: u32,
    ) -> Result<GatewayOffer, LoginError> {
        let offer = self.offer(context, worlds, world).await;
        metrics::offer(offer.as_ref().map_or_else(LoginError::label, |_| "ok"));
        offer
    }

    async fn offer(
        &mut self,
        context: &LoginContext,
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
                LoginError::WorldUnavailable("this world is not open now")
            });
        }
        if let Some((gateway, ticket)) = self.offered.take() {
            context.gateways.revoke_ticket(&gateway, ticket).await;
        }
        let ticket = self.unused.take().unwrap_or_else(|| self.chain.take());
        let (id, index) = (ticket.id, ticket.index);
        let placement = self.place_ticket(context, &ticket, world).await;
        // Until there is an offer.
        self.unused = Some(ticket);
        let (gateway, generation) = match placement {
            Placement::Admitted(gateway, Ok(generation)) => (gateway, generation),
            Placement::Admitted(gateway, Err(error)) => {
                context.gateways.revoke_ticket(&gateway, id).await;
                return Err(error.into());
            }
            Placement::NoGateway => return Err(LoginError::NoGateway),
            Placement::Outdated => return Err(self.end_superseded(context).await?),
        };
        let offer = GatewayOffer {
            gateway: gateway.client_address.clone(),
            ticket_index: index,
            ticket_lifetime_ms: context.ticket_lifetime_ms(),
        };
        self.offered = Some((gateway, id));
        // A ban or another login may have come between. Gateways drop what they hold when they are told of it; a ticket
        // that reached one after that is dropped here, because the new generation was in the store before.
        if generation != Some(self.generation) {
            return Err(self.end_superseded(context).await?);
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

    async fn place_ticket(&self, context: &LoginContext, ticket: &Ticket, world: u32) -> Placement {
        for gateway in context.gateways.candidates() {
            let admission = Admission {
                ticket_id: ticket.id.as_bytes().to_vec(),
                ticket_key: ticket.key.expose().to_vec(),
                account: self.account.0,
                account_name: self.name.to_string(),
                generation: self.generation.0,
                world,
                lifetime_ms: context.ticket_lifetime_ms(),
            };
            match context.gateways.admit(&gateway, admission).await {
                Ok(generation) => return Placement::Admitted(gateway, generation),
                // The others have heard of it too, or will.
                Err(AdmitError::Outdated) => return Placement::Outdated,
                Err(AdmitError::Unavailable(status)) => {
                    warn!(gateway = gateway.id.name, %status, "does not admit");
                    // It may have it all the same: the answer can have been lost.
                    context.gateways.revoke_ticket(&gateway, ticket.id).await;
                }
            }
        }
        Placement::NoGateway
    }

    /// This connection's generation has passed: its ticket is dropped. Says why.
    pub(crate) async fn end_superseded(&mut self, context: &LoginContext) -> Result<LoginError, LoginError> {
        if let Some((gateway, ticket)) = self.offered.take() {
            context.gateways.revoke_ticket(&gateway, ticket).await;
        }
        let Some(account) = accounts::by_id(&context.database, self.account).await? else {
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
enum Placement {
    /// This gateway has it, and the account had this generation since.
    Admitted(Instance, Result<Option<Generation>, BatchError>),
    NoGateway,
    /// Gateways know of a higher generation of the account.
    Outdated,
}
