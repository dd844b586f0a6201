//! Tickets of one connection. Each selection of a world moves one ticket to a gateway and revokes the one before.

use std::{sync::Arc, time::Duration};

use shardkeep_auth::ticket::{Ticket, TicketChain};
use shardkeep_cluster::Instance;
use shardkeep_rpc::gateway::Admission;
use shardkeep_types::{Generation, TicketId};
use shardkeep_wire::payload::{GatewayOffer, LaneAddress, WorldList};
use tracing::warn;

use crate::{
    accounts::{queries::BatchError, session::LoginSession},
    error::LoginError,
    metrics,
    worlds::{
        gateways::{AdmitError, Gateways},
        list::{self, Viewer},
    },
};

/// Moves tickets to gateways.
pub(crate) struct TicketOffice {
    gateways: Arc<Gateways>,
    lifetime_ms: u32,
}

/// The tickets of one connection.
pub(crate) struct TicketOffers {
    chain: TicketChain,
    /// The last ticket of the chain, if no gateway took it. Only an answer with an offer uses up a ticket.
    unused: Option<Ticket>,
    offered: Option<(Instance, TicketId)>,
    has_selected: bool,
}

impl TicketOffers {
    pub(crate) fn new(chain: TicketChain) -> Self {
        Self { chain, unused: None, offered: None, has_selected: false }
    }

    /// Whether a gateway has had a ticket of this connection, so that the player may be playing now.
    pub(crate) fn has_selected_world(&self) -> bool {
        self.has_selected
    }
}

/// The outcome of moving a ticket to a gateway.
enum Placement {
    /// This gateway has it; the account's generation after that.
    Admitted(Instance, Result<Option<Generation>, BatchError>),
    NoGateway,
    /// A gateway knows a higher generation of the account.
    Outdated,
}

impl TicketOffice {
    pub(crate) fn new(gateways: Arc<Gateways>, lifetime: Duration) -> Self {
        Self { gateways, lifetime_ms: u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX) }
    }

    /// Moves the next ticket to the best gateway. [`LoginError::Displaced`]: the session is no longer the last one.
    pub(crate) async fn select(
        &self,
        offers: &mut TicketOffers,
        session: &LoginSession,
        viewer: &Viewer,
        worlds: &WorldList,
        world: u32,
    ) -> Result<GatewayOffer, LoginError> {
        let offer = self.offer(offers, session, viewer, worlds, world).await;
        metrics::offer(offer.as_ref().map_or_else(LoginError::label, |_| "ok"));
        offer
    }

    async fn offer(
        &self,
        offers: &mut TicketOffers,
        session: &LoginSession,
        viewer: &Viewer,
        worlds: &WorldList,
        world: u32,
    ) -> Result<GatewayOffer, LoginError> {
        let found = worlds.worlds.iter().find(|candidate| candidate.id == world);
        let found = found.ok_or(LoginError::NoWorld(world))?;
        if !list::may_enter(found, viewer) {
            // In the shared list `may_enter` is false of a world without a leader, and true of a closed one.
            return Err(if found.may_enter {
                LoginError::WorldClosed(found.note.clone())
            } else {
                LoginError::WorldUnavailable("this world is not open now; try again or choose another one")
            });
        }
        self.revoke_offered(offers).await;
        let ticket = offers.unused.take().unwrap_or_else(|| offers.chain.take());
        let (id, index) = (ticket.id, ticket.index);
        let placement = self.place(session, &ticket, world).await;
        // The ticket stays unused until the offer is complete.
        offers.unused = Some(ticket);
        let (gateway, generation) = match placement {
            Placement::Admitted(gateway, Ok(generation)) => (gateway, generation),
            Placement::Admitted(gateway, Err(error)) => {
                self.gateways.revoke_ticket(&gateway, id).await;
                return Err(error.into());
            }
            Placement::NoGateway => return Err(LoginError::NoGateway),
            Placement::Outdated => return Err(LoginError::Displaced),
        };
        let offer = GatewayOffer {
            gateway: gateway.client_address.clone(),
            ticket_index: index,
            ticket_lifetime_ms: self.lifetime_ms,
            lanes: LaneAddress::from_attributes(&gateway.attributes),
        };
        offers.offered = Some((gateway, id));
        // A ban or another login may have raised the generation meanwhile. A gateway drops the tickets that it holds when it
        // is told. A ticket that arrived after that is revoked here, because the store had the new generation before.
        if generation != Some(session.generation().generation) {
            return Err(LoginError::Displaced);
        }
        offers.unused = None;
        offers.has_selected = true;
        shardkeep_daemon::event!(
            "world_selected",
            account = session.id().0,
            world,
            gateway = offer.gateway.as_str()
        );
        Ok(offer)
    }

    async fn place(&self, session: &LoginSession, ticket: &Ticket, world: u32) -> Placement {
        for gateway in self.gateways.candidates() {
            let admission = Admission {
                ticket_id: ticket.id.as_bytes().to_vec(),
                ticket_key: ticket.key.expose().to_vec(),
                account: session.id().0,
                account_name: session.name().to_string(),
                generation: session.generation().generation.0,
                world,
                lifetime_ms: self.lifetime_ms,
            };
            match self.gateways.admit(&gateway, admission).await {
                Ok(generation) => return Placement::Admitted(gateway, generation),
                // Other gateways know it too, or will soon.
                Err(AdmitError::Outdated) => return Placement::Outdated,
                Err(AdmitError::Unavailable(status)) => {
                    warn!(gateway = gateway.id.name, %status, "the gateway does not take a ticket; login tries the next one");
                    // The answer may have been lost after the gateway took the ticket.
                    self.gateways.revoke_ticket(&gateway, ticket.id).await;
                }
            }
        }
        Placement::NoGateway
    }

    /// Revokes the ticket that a gateway holds for this connection.
    pub(crate) async fn revoke_offered(&self, offers: &mut TicketOffers) {
        if let Some((gateway, ticket)) = offers.offered.take() {
            self.gateways.revoke_ticket(&gateway, ticket).await;
        }
    }
}
