//! Keeps this instance known to one registry: registers, extends the lease, registers again when the registry has
//! forgotten or the announcement has changed, and leaves at the end.

use std::time::Duration;

use metrics::{counter, gauge};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::registry::{
    self, HeartbeatRequest, LeaveRequest, RegisterRequest, registry_client::RegistryClient,
};
use tokio::sync::watch;
use tonic::{Code, Request, Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::{
    Backoff, Instance, State,
    metrics::{REGISTER_FAILURES, REGISTRIES},
};

const LEAVE_DEADLINE: Duration = Duration::from_millis(500);

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rhythm {
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// Where an instance says what it has become, and where it is told that a registry knows.
pub(crate) struct Voice {
    pub(crate) announcement: watch::Receiver<Instance>,
    /// Set once any registry has taken note that the instance is up.
    pub(crate) known_up: watch::Sender<bool>,
    pub(crate) daemon: Daemon,
}

/// Runs until the daemon has finished.
pub(crate) async fn keep(
    address: String,
    channel: Channel,
    voice: Voice,
    rhythm: Rhythm,
) -> anyhow::Result<()> {
    let Voice { mut announcement, known_up, daemon } = voice;
    let finished = daemon.finished();
    let mut client = RegistryClient::new(channel);
    let mut backoff = Backoff::new(rhythm.heartbeat / 10, rhythm.heartbeat);
    // What this registry knows of us; nothing, as long as it has not answered.
    let mut told: Option<Instance> = None;
    let mut superseded = false;
    loop {
        let now = announcement.borrow_and_update().clone();
        let result = tokio::select! {
            result = tell(&mut client, &now, told.as_ref(), rhythm) => result,
            () = finished.cancelled() => break,
        };
        let pause = match result {
            Ok(true) => {
                if now.state == State::Up {
                    known_up.send_replace(true);
                }
                if told.replace(now).is_none() {
                    info!(registry = address, "registered");
                    gauge!(REGISTRIES).increment(1.0);
                }
                backoff.reset();
                rhythm.heartbeat
            }
            Ok(false) => {
                debug!(registry = address, "forgotten by the registry");
                forget(&mut told);
                Duration::ZERO
            }
            Err(status) => {
                counter!(REGISTER_FAILURES).increment(1);
                if told.is_some() {
                    info!(registry = address, %status, "lost the registry");
                }
                if status.code() == Code::FailedPrecondition && !std::mem::replace(&mut superseded, true) {
                    let instance = &now.id;
                    warn!(
                        %instance, %status,
                        "not registered: another process runs under this instance's name, or did under a later clock \
                         (then restarting this one mends it)"
                    );
                }
                forget(&mut told);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = announcement.changed(), if told.is_some() => {}
            () = finished.cancelled() => break,
        }
    }
    if told.is_some() {
        let id = Some((&announcement.borrow().id).into());
        let leave = LeaveRequest { id, failed: daemon.has_failed() };
        let _ = tokio::time::timeout(LEAVE_DEADLINE, client.leave(leave)).await;
    }
    Ok(())
}

fn forget(told: &mut Option<Instance>) {
    if told.take().is_some() {
        gauge!(REGISTRIES).decrement(1.0);
    }
}

/// Says what is new; `false` when the registry does not know us.
async fn tell(
    client: &mut RegistryClient<Channel>,
    now: &Instance,
    told: Option<&Instance>,
    rhythm: Rhythm,
) -> Result<bool, Status> {
    match told {
        Some(told) if same_addresses(told, now) => {
            let heartbeat = HeartbeatRequest {
                id: Some((&now.id).into()),
                state: registry::State::from(now.state).into(),
                load: now.load,
                attributes: now.attributes.clone().into_iter().collect(),
            };
            let reply = client.heartbeat(timed(heartbeat, rhythm.lease / 2)).await?;
            Ok(reply.into_inner().known)
        }
        _ => {
            let lease_ms = u32::try_from(rhythm.lease.as_millis()).unwrap_or(u32::MAX);
            let register = RegisterRequest { instance: Some(now.into()), lease_ms };
            client.register(timed(register, rhythm.lease / 2)).await?;
            Ok(true)
        }
    }
}

/// A heartbeat carries state, load and attributes; for the rest one must register again.
fn same_addresses(a: &Instance, b: &Instance) -> bool {
    a.client_address == b.client_address
        && a.admin_address == b.admin_address
        && a.grpc_address == b.grpc_address
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
