//! Keeps this instance registered with one registry: registers, extends the lease, registers again when the registry
//! has lost the instance or an address has changed, and leaves at the end.

use std::time::Duration;

use metrics::counter;
use shardkeep_daemon::Daemon;
use shardkeep_rpc::registry::{
    self, HeartbeatRequest, LeaveRequest, RegisterRequest, registry_client::RegistryClient,
};
use shardkeep_types::Secret;
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Request, Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::{
    Backoff, Instance, State, call_failure,
    leases::{LeaseCount, Leases},
    metrics::REGISTER_FAILURES,
};

const LEAVE_DEADLINE: Duration = Duration::from_millis(500);
/// How often a registration that keeps failing is logged, after the first failure.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseTiming {
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// State that the registration task reads, and flags that it sets.
pub(crate) struct RegistrationHandle {
    pub(crate) announcement: watch::Receiver<Instance>,
    pub(crate) leases: Leases,
    pub(crate) daemon: Daemon,
    /// Proves to the registry that heartbeats come from the process that registered.
    pub(crate) key: RegistrationKey,
}

/// Random bytes that a process chooses at its start.
#[derive(Clone)]
pub(crate) struct RegistrationKey(Secret<Vec<u8>>);

impl RegistrationKey {
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let mut bytes = vec![0; 16];
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        Ok(Self(Secret::new(bytes)))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.expose().clone()
    }
}

/// Runs until the daemon has finished.
pub(crate) async fn run(
    address: String,
    channel: Channel,
    handle: RegistrationHandle,
    timing: LeaseTiming,
) -> anyhow::Result<()> {
    let RegistrationHandle { mut announcement, leases, daemon, key } = handle;
    let finished = daemon.finished();
    let mut client = RegistryClient::new(channel);
    let mut backoff = Backoff::new(timing.heartbeat / 10, timing.heartbeat);
    let mut warnings = FailureLog::default();
    // The instance as this registry last confirmed it. `None` until the registry has answered.
    let mut registered: Option<(Instance, LeaseCount)> = None;
    loop {
        let current = announcement.borrow_and_update().clone();
        let known = registered.as_ref().map(|(instance, _)| instance);
        let result = tokio::select! {
            result = send_update(&mut client, &current, known, &key, timing) => result,
            () = finished.cancelled() => break,
        };
        let pause = match result {
            Ok(true) => {
                if registered.is_none() {
                    info!(registry = address, "registered");
                }
                let lease = registered.take().map_or_else(|| leases.acquire(), |(_, lease)| lease);
                if current.state == State::Up {
                    leases.known_up();
                }
                registered = Some((current, lease));
                warnings = FailureLog::default();
                backoff.reset();
                timing.heartbeat
            }
            Ok(false) => {
                debug!(registry = address, "the registry has restarted: register again");
                registered = None;
                Duration::ZERO
            }
            Err(status) if is_replaced(&status) => {
                registered = None;
                if !daemon.draining().is_cancelled() {
                    daemon.fail(&replaced_message(&current, &address, &status));
                }
                timing.heartbeat
            }
            Err(status) => {
                counter!(REGISTER_FAILURES).increment(1);
                registered = None;
                let cause = call_failure::explain(&status);
                leases.report_failure(&address, &cause);
                if warnings.is_due(Instant::now()) {
                    warn!(registry = address, cause, "cannot register with the registry");
                }
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
        let leave = LeaveRequest { id, failed: daemon.has_failed(), key: key.bytes() };
        let _ = tokio::time::timeout(LEAVE_DEADLINE, client.leave(leave)).await;
    }
    Ok(())
}

/// Decides which failures of one registry are logged: the first, and one per [`WARN_INTERVAL`] after it.
#[derive(Default)]
struct FailureLog {
    last: Option<Instant>,
}

impl FailureLog {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= WARN_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// The registry holds a later start of this instance.
fn is_replaced(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

/// The incarnation of a process is fixed, so it cannot register again: a restart takes the next incarnation.
fn replaced_message(instance: &Instance, registry: &str, status: &Status) -> String {
    format!(
        "the registry {registry} has replaced {} (incarnation {}): {}. Another process runs under this name, or an \
         earlier start had a later clock. Stop the other process, or restart this one",
        instance.id,
        instance.id.incarnation,
        status.message()
    )
}

/// Registers or extends the lease. Returns `false` when the registry does not know this instance.
async fn send_update(
    client: &mut RegistryClient<Channel>,
    current: &Instance,
    registered: Option<&Instance>,
    key: &RegistrationKey,
    timing: LeaseTiming,
) -> Result<bool, Status> {
    match registered {
        Some(registered) if same_addresses(registered, current) => {
            let heartbeat = HeartbeatRequest {
                id: Some((&current.id).into()),
                state: registry::State::from(current.state).into(),
                load: current.load,
                leadership: registry::Leadership::from(current.leadership).into(),
                attributes: current.attributes.clone().into_iter().collect(),
                key: key.bytes(),
            };
            let reply = client.heartbeat(with_timeout(heartbeat, timing.lease / 2)).await?;
            Ok(reply.into_inner().known)
        }
        _ => {
            let lease_ms = u32::try_from(timing.lease.as_millis()).unwrap_or(u32::MAX);
            let register = RegisterRequest { instance: Some(current.into()), lease_ms, key: key.bytes() };
            client.register(with_timeout(register, timing.lease / 2)).await?;
            Ok(true)
        }
    }
}

/// A heartbeat carries state, load, leadership and attributes. A change of addresses needs a registration.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_at_first_and_once_a_minute() {
        let (mut log, now) = (FailureLog::default(), Instant::now());
        let due: Vec<u64> =
            (0..180).filter(|second| log.is_due(now + Duration::from_secs(*second))).collect();
        assert_eq!(due, [0, 60, 120]);
    }
}
