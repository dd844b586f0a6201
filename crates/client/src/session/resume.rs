//! Resumes a session whose connection is lost. Each round tries the session's own gateway and then every other one;
//! the first round begins with the gateway of a redirect, if there is one. The pauses between rounds grow. Rounds go
//! on for as long as the gateways keep the session (`docs/protocol.md`, section 11).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use shardkeep_lanes::Lane;
use shardkeep_wire::{
    payload::{ErrorCode, Redirect},
    preface::Service,
};
use tokio::time::{sleep, timeout};

use super::{driver::Driver, sink::Sink};
use crate::{
    ClientError, SessionEnd,
    counters::count,
    handshake::{self, Established},
    random,
    raw::Connection,
    resolve::{self, GATEWAY_PORT},
};

/// The answers of the gateways in one round.
#[derive(Default)]
struct RoundOutcome {
    unknown: u32,
    other: u32,
}

impl<S: Sink> Driver<S> {
    /// A connection on which the session continues, or the reason why there is none.
    pub(super) async fn resume(&mut self, mut redirect: Option<Redirect>) -> Result<Connection, SessionEnd> {
        let until = Instant::now() + Duration::from_millis(self.ready.link_loss_ms.into());
        let (mut pause, longest) = self.config.timing.pause;
        let mut unknown_since = None;
        loop {
            let mut round = RoundOutcome::default();
            if let Some(connection) = self.round(redirect.take(), &mut round).await? {
                return Ok(connection);
            }
            if round.unknown == 0 || round.other > 0 {
                unknown_since = None;
            } else if unknown_since.get_or_insert_with(Instant::now).elapsed()
                >= self.config.timing.unknown_session_timeout
            {
                return Err(SessionEnd::Gone);
            }
            if Instant::now() + pause >= until {
                return Err(SessionEnd::Unreachable);
            }
            sleep(random::jitter(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Tries every gateway once.
    async fn round(
        &mut self,
        redirect: Option<Redirect>,
        round: &mut RoundOutcome,
    ) -> Result<Option<Connection>, SessionEnd> {
        let mut tried = Vec::new();
        let own = Redirect { gateway: self.ready.gateway.clone(), lanes: self.ready.lanes.clone() };
        for Redirect { gateway, lanes } in redirect.into_iter().chain([own]) {
            let addresses = resolve::gateway(&self.config, &gateway, &lanes).await.unwrap_or_default();
            if let Some(connection) = self.try_addresses(addresses, &mut tried, round).await? {
                return Ok(Some(connection));
            }
        }
        if self.ready.any_gateway.is_empty() {
            return Ok(None);
        }
        let any = resolve::service(&self.config, &self.ready.any_gateway, GATEWAY_PORT).await;
        round.other += u32::from(any.is_err());
        let lanes = self.config.lanes.clone();
        let any = any.unwrap_or_default();
        let addresses = lanes.into_iter().flat_map(|lane| any.iter().map(move |address| (lane, *address)));
        let addresses = addresses.collect();
        self.try_addresses(addresses, &mut tried, round).await
    }

    async fn try_addresses(
        &mut self,
        addresses: Vec<(Lane, SocketAddr)>,
        tried: &mut Vec<(Lane, SocketAddr)>,
        round: &mut RoundOutcome,
    ) -> Result<Option<Connection>, SessionEnd> {
        for (lane, address) in addresses {
            if tried.contains(&(lane, address)) {
                continue;
            }
            tried.push((lane, address));
            let attempt = timeout(self.config.timing.resume, self.attempt(lane, address)).await;
            match attempt.unwrap_or(Err(ClientError::Timeout("the gateway's answer"))) {
                Ok((connection, established)) => {
                    self.resumed(established, connection.lane())
                        .map_err(|error| SessionEnd::Protocol(error.to_string()))?;
                    return Ok(Some(connection));
                }
                Err(error) => self.record_failure(address, error, round)?,
            }
        }
        Ok(None)
    }

    async fn attempt(
        &mut self,
        lane: Lane,
        address: SocketAddr,
    ) -> Result<(Connection, Established), ClientError> {
        let mut connection =
            Box::pin(Connection::open_on(&self.config, lane, address, Service::Gateway)).await?;
        let received = self.queues.inbox.received();
        let established =
            handshake::resume(&mut connection, &self.config, self.id, &self.keys, received).await?;
        Ok((connection, established))
    }

    fn record_failure(
        &self,
        address: SocketAddr,
        error: ClientError,
        round: &mut RoundOutcome,
    ) -> Result<(), SessionEnd> {
        tracing::debug!(%address, %error, "cannot resume here");
        count(&self.counters().failed_resumes);
        match error {
            ClientError::Refused(refusal) => match refusal.code {
                ErrorCode::TicketInvalid => round.unknown += 1,
                ErrorCode::Draining => round.other += 1,
                _ if refusal.is_temporary() => round.other += 1,
                _ => return Err(SessionEnd::Refused(refusal)),
            },
            // Not counted: a gateway that cannot be reached does not tell whether the session still exists.
            ClientError::Connect { .. } => {}
            _ => round.other += 1,
        }
        Ok(())
    }
}
