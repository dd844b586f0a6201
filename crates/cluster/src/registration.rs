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
pub(crate) struct LeaseTiming {
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// Where an instance says what it has become, and where it is told that a registry knows.
pub(crate) struct RegistrationHandle {
    pub(crate) announcement: watch::Receiver<Instance>,
    /// Set once any registry has taken note that the instance is up.
    pub(crate) known_up: watch::Sender<bool>,
    pub(crate) daemon: Daemon,
}

/// Runs until the daemon has finished.
pub(crate) async fn run(
    address: String,
    channel: Channel,
    handle: RegistrationHandle,
    timing: LeaseTiming,
) -> anyhow::Result<()> {
    let RegistrationHandle { mut announcement, known_up, daemon } = handle;
    let finished = daemon.finished();
    let mut client = RegistryClient::new(channel);
    let mut backoff = Backoff::new(timing.heartbeat / 10, timing.heartbeat);
    // What this registry knows of us; nothing, as long as it has not answered.
    let mut registered: Option<Instance> = None;
    let mut superseded = false;
    loop {
        let current = announcement.borrow_and_update().clone();
        let result = tokio::select! {
            result = send_update(&mut client, &current, registered.as_ref(), timing) => result,
            () = finished.cancelled() => break,
        };
        let pause = match result {
            Ok(true) => {
                if current.state == State::Up {
                    known_up.send_replace(true);
                }
                if registered.replace(current).is_none() {
                    info!(registry = address, "registered");
                    gauge!(REGISTRIES).increment(1.0);
                }
                backoff.reset();
                timing.heartbeat
            }
            Ok(false) => {
                debug!(registry = address, "forgotten by the registry");
                clear_registered(&mut registered);
                Duration::ZERO
            }
            Err(status) => {
                counter!(REGISTER_FAILURES).increment(1);
                if registered.is_some() {
                    info!(registry = address, %status, "lost the registry");
                }
                if status.code() == Code::FailedPrecondition && !std::mem::replace(&mut superseded, true) {
                    let instance = &current.id;
                    warn!(
                        %instance, %status,
                        "not registered: another process runs under this instance's name, or did under a later clock \
                         (then restarting this one mends it)"
                    );
                }
                clear_registered(&mut registered);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = announcement.changed(), if registered.is_some() => {}
            () = finished.cancelled() => break,
        }
    }
    if registered.is_some() {
        let id = Some((&announcement.borrow().id).into());
        let leave = LeaveRequest { id, failed: daemon.has_failed() };
        let _ = tokio::time::timeout(LEAVE_DEADLINE, client.leave(leave)).await;
    }
    Ok(())
}

fn clear_registered(registered: &mut Option<Instance>) {
    if registered.take().is_some() {
        gauge!(REGISTRIES).decrement(1.0);
    }
}

/// Says what is new; `false` when the registry does not know us.
async fn send_update(
    client: &mut RegistryClient<Channel>,
    current: &Instance,
    registered: Option<&Instance>,
    timing: LeaseTiming,
) -> Result<bool, Status> {
    match registered {
        Some(registered) if same_addresses(registered, current) => {
            let heartbeat = HeartbeatRequest {
                id: Some((&current.id).into()),
                state: registry::State::from(current.state).into(),
                load: current.load,
                attributes: current.attributes.clone().into_iter().collect(),
            };
            let reply = client.heartbeat(with_timeout(heartbeat, timing.lease / 2)).await?;
            Ok(reply.into_inner().known)
        }
        _ => {
            let lease_ms = u32::try_from(timing.lease.as_millis()).unwrap_or(u32::MAX);
            let register = RegisterRequest { instance: Some(current.into()), lease_ms };
            client.register(with_timeout(register, timing.lease / 2)).await?;
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

fn with_timeout<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
