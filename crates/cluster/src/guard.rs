//! Checks each call against the access table before a service gets it, and records privileged calls.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures::future::Either;
use metrics::counter;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Status, codegen::http};
use tower::{Layer, Service};
use tracing::warn;

use crate::{
    OperatorName, Peer,
    access::{self, Effect},
    metrics::REFUSED,
};

/// Puts [`Guard`] around the services of an instance of this world.
#[derive(Clone)]
pub(crate) struct GuardLayer {
    pub(crate) world: WorldId,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, world: self.world }
    }
}

#[derive(Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    world: WorldId,
}

impl<S, B, R> Service<http::Request<B>> for Guard<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if let Some(operator) = OperatorName::of_headers(request.headers()) {
            request.extensions_mut().insert(operator);
        }
        match apply_replica_name(&mut request).and_then(|()| self.authorize(&request)) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

/// Replicas may share a certificate. In a call of such a replica, replaces the name in the certificate by the name
/// that the replica states in `user-agent`.
fn apply_replica_name<B>(request: &mut http::Request<B>) -> Result<(), Status> {
    let Some(shared) = request.extensions().get::<Peer>().filter(|peer| peer.is_shared()) else {
        return Ok(());
    };
    let user_agent = request.headers().get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    let Some(named) = user_agent.and_then(|text| shared.with_replica_name(text)) else {
        counter!(REFUSED, "reason" => "nameless").increment(1);
        warn!(peer = %shared, "refused a call of a replica that does not say which");
        return Err(Status::unauthenticated("a shared certificate, and no <kind>/<name> in user-agent"));
    };
    request.extensions_mut().insert(named);
    Ok(())
}

/// Logs a privileged call of the command line as an event, with its operator. The console has its own audit.
fn record_privileged_call(path: &str, peer: &Peer, operator: Option<&OperatorName>) -> Result<(), Status> {
    let Some(operator) = operator else {
        counter!(REFUSED, "reason" => "no_operator").increment(1);
        warn!(%peer, path, "refused a call that names no operator");
        return Err(Status::unauthenticated(
            "this call changes something and must name its operator; set SHARDKEEP_OPERATOR",
        ));
    };
    shardkeep_daemon::event!("operator_call", operator = operator.as_str(), %peer, method = path);
    Ok(())
}

impl<S> Guard<S> {
    fn authorize<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Err(Status::unauthenticated("no peer certificate"));
        };
        let effect = access::authorize(path, peer, self.world).map_err(|refusal| {
            counter!(REFUSED, "reason" => refusal.label()).increment(1);
            warn!(%peer, path, reason = %refusal, "refused a call");
            Status::permission_denied(refusal.to_string())
        })?;
        if effect == Effect::Privileged && peer.kind == DaemonKind::Cli {
            record_privileged_call(path, peer, request.extensions().get())?;
        }
        Ok(())
    }
}
