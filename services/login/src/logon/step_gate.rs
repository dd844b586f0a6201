//! Ends steps of the handshake at times that do not depend on how long they took. The work for an account that exists takes
//! some microseconds longer than for one that does not, and many attempts would measure the difference.
//!
//! The timer of the runtime cannot hide it: its thread sleeps for whole milliseconds from the moment when it becomes idle,
//! which is when the step is done. A separate thread therefore ends the steps by the clock.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use shardkeep_daemon::Daemon;
use tokio::sync::oneshot;

/// A step ends at the next [`TICK`] after a whole multiple of this time since its start.
const STEP: Duration = Duration::from_millis(5);
/// Steps end at whole multiples of this time. The logins of a storm then continue together, and their next questions to
/// the store go into one statement.
const TICK: Duration = Duration::from_millis(5);

/// Dropping it ends its thread.
pub(crate) struct StepGate(Arc<Shared>);

struct Shared {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// Bound: one for each connection in its handshake, so it cannot overflow.
    steps: Vec<Step>,
    stopped: bool,
}

struct Step {
    due: Instant,
    ended: oneshot::Sender<()>,
}

impl StepGate {
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn new(daemon: &Daemon) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let thread = shared.clone();
        // Without the thread every handshake would wait for ever.
        daemon.spawn_thread("step-ends", move || thread.run())?;
        Ok(Self(shared))
    }

    /// Runs a step, and returns at the next tick.
    pub(crate) async fn run_until_tick<T>(&self, step: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = step.await;
        let (ended, end) = oneshot::channel();
        self.0.state.lock().steps.push(Step { due: end_of(started, Instant::now()), ended });
        self.0.changed.notify_one();
        // The thread sends before it drops a step.
        let _ = end.await;
        done
    }
}

impl Drop for StepGate {
    fn drop(&mut self) {
        self.0.state.lock().stopped = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let started = Instant::now();
        let mut state = self.state.lock();
        while !state.stopped {
            if state.steps.is_empty() {
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            thread::sleep(until_tick(started.elapsed()));
            state = self.state.lock();
            let now = Instant::now();
            for step in state.steps.extract_if(.., |step| step.due <= now) {
                // The client may have disconnected.
                let _ = step.ended.send(());
            }
        }
    }
}

/// The first whole multiple of [`STEP`] after `started` that is later than `now`.
fn end_of(started: Instant, now: Instant) -> Instant {
    let steps = now.saturating_duration_since(started).as_micros() / STEP.as_micros() + 1;
    started + STEP * u32::try_from(steps).unwrap_or(u32::MAX)
}

/// Time until the next whole multiple of [`TICK`].
fn until_tick(elapsed: Duration) -> Duration {
    let past = elapsed.as_nanos() % TICK.as_nanos();
    TICK - Duration::from_nanos(u64::try_from(past).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_of_different_cost_end_on_a_common_tick() {
        let (step_gate, started) = (
            StepGate::new(&Daemon::new(shardkeep_types::DaemonKind::Login, "login-1")).unwrap(),
            Instant::now(),
        );
        let steps = (0..50u64).map(|number| {
            step_gate.run_until_tick(async move {
                tokio::time::sleep(Duration::from_micros(100 * number)).await;
                number
            })
        });
        assert_eq!(futures::future::join_all(steps).await, (0..50).collect::<Vec<_>>());
        assert!(started.elapsed() >= STEP);
        assert!(step_gate.0.state.lock().steps.is_empty());
    }

    #[test]
    fn step_ends_and_ticks_are_whole_multiples() {
        let started = Instant::now();
        let end = |micros| end_of(started, started + Duration::from_micros(micros)) - started;
        assert_eq!([0, 1, 4_999, 5_000, 12_000].map(end).map(|it| it.as_millis()), [5, 5, 5, 10, 15]);
        let tick = |micros| until_tick(Duration::from_micros(micros)).as_micros();
        assert_eq!([0, 1, 4_999, 5_000, 7_500].map(tick), [5_000, 4_999, 1, 5_000, 2_500]);
    }
}
