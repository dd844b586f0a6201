//! Worlds that operators have closed, as login says: players who are inside are told once, and sent home when the time
//! is up, whenever and from where they came. Staff stay.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::Mutex;
use shardkeep_rpc::accounts as proto;
use shardkeep_types::{AccountId, SessionId, WorldId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Announcement, ErrorCode},
};

use crate::{
    core::Core,
    metrics::MAINTENANCE_DISCONNECTS,
    session::{Ending, Session},
};

#[derive(Default)]
pub(crate) struct Closures(Mutex<State>);

#[derive(Default)]
struct State {
    worlds: HashMap<WorldId, Closure>,
    staff: HashSet<AccountId>,
    /// Which closure a session has been told of. Only of sessions that are here.
    warned: HashMap<SessionId, u64>,
}

struct Closure {
    /// Names it: another time is another closure.
    id: u64,
    note: String,
    ends: Instant,
}

/// What a closure means to a session.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Warn(Duration),
    Disconnect,
}

impl State {
    fn update(&mut self, closures: proto::Closures, now: Instant) {
        let closure = |it: proto::Closure| {
            let ends = now + Duration::from_millis(it.left_ms).min(MAX_CLOSURE_TIME);
            (WorldId(it.world), Closure { id: it.ends_ms, note: it.note, ends })
        };
        self.worlds = closures.worlds.into_iter().map(closure).collect();
        self.staff = closures.staff.into_iter().map(AccountId).collect();
        if self.worlds.is_empty() {
            self.warned = HashMap::new();
        }
    }

    fn decide(
        &mut self,
        session: SessionId,
        account: AccountId,
        world: WorldId,
        now: Instant,
    ) -> Option<(Verdict, &str)> {
        let closure = self.worlds.get(&world)?;
        if self.staff.contains(&account) {
            return None;
        }
        if now >= closure.ends {
            return Some((Verdict::Disconnect, &closure.note));
        }
        let warned = self.warned.insert(session, closure.id) == Some(closure.id);
        (!warned).then_some((Verdict::Warn(closure.ends - now), &closure.note))
    }
}

/// No closure gives more time.
const MAX_CLOSURE_TIME: Duration = Duration::from_hours(24);

impl Core {
    /// Which worlds are closed now, all of them.
    pub(crate) fn apply_closures(&self, closures: proto::Closures) {
        self.closures.0.lock().update(closures, Instant::now());
        self.enforce_closures(&self.sessions.all(), Instant::now());
    }

    /// Tells those who are in a closed world and may not, or sends them home. To be called every second or so.
    pub(crate) fn enforce_closures(&self, sessions: &[Arc<Session>], now: Instant) {
        let mut state = self.closures.0.lock();
        if state.worlds.is_empty() {
            return;
        }
        let here: HashSet<SessionId> = sessions.iter().map(|session| session.id).collect();
        state.warned.retain(|session, _| here.contains(session));
        let (mut warned, mut disconnected) = (Vec::new(), Vec::new());
        for session in sessions {
            match state.decide(session.id, session.account, session.world, now) {
                None => {}
                Some((Verdict::Warn(remaining), note)) => {
                    let line = Announcement { text: warning(remaining, note) };
                    session.lock().reliable(Message::event(opcode::ANNOUNCEMENT, &line).to_bytes());
                    if session.waker.set_pending() {
                        warned.push(session.clone());
                    }
                }
                Some((Verdict::Disconnect, note)) => {
                    disconnected.push((session, Ending::new(ErrorCode::Maintenance, note)));
                }
            }
        }
        drop(state);
        self.wake(warned);
        counter!(MAINTENANCE_DISCONNECTS).increment(disconnected.len() as u64);
        disconnected.into_iter().for_each(|(session, ending)| self.end(session, ending));
    }
}

fn warning(remaining: Duration, note: &str) -> String {
    let seconds = remaining.as_secs_f64().ceil();
    let line = format!("This world closes for maintenance in {seconds} s");
    if note.is_empty() { line } else { format!("{line}: {note}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: SessionId = SessionId([1; 16]);

    fn closures(world: u32, ends_ms: u64, left_ms: u64) -> proto::Closures {
        let closure = proto::Closure { world, note: "until nine".into(), ends_ms, left_ms };
        proto::Closures { worlds: vec![closure], staff: vec![8] }
    }

    #[test]
    fn closed_world_warns_once_then_disconnects_but_keeps_staff() {
        let (mut state, now) = (State::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        fn verdict(state: &mut State, account: u64, world: u32, now: Instant) -> Option<Verdict> {
            state.decide(ME, AccountId(account), WorldId(world), now).map(|(verdict, _)| verdict)
        }
        assert_eq!(verdict(&mut state, 7, 1, now), None);
        state.update(closures(1, 100, 60_000), now);
        assert_eq!(verdict(&mut state, 8, 1, now), None, "staff");
        assert_eq!(verdict(&mut state, 7, 2, now), None, "another world");
        assert_eq!(verdict(&mut state, 7, 1, now), Some(Verdict::Warn(Duration::from_secs(60))));
        // Login says it again.
        state.update(closures(1, 100, 50_000), later(10));
        assert_eq!(verdict(&mut state, 7, 1, later(10)), None, "it knows");
        assert_eq!(verdict(&mut state, 7, 1, later(60)), Some(Verdict::Disconnect));
        // The operator gives more time.
        state.update(closures(1, 200, 60_000), later(20));
        assert_eq!(verdict(&mut state, 7, 1, later(20)), Some(Verdict::Warn(Duration::from_secs(60))));
        state.update(proto::Closures::default(), later(30));
        assert_eq!(verdict(&mut state, 7, 1, later(100)), None, "open again");
        assert!(state.warned.is_empty());
    }

    #[test]
    fn closure_warning_contains_time_left_and_note() {
        let text = warning(Duration::from_millis(59_001), "new maps");
        assert_eq!(text, "This world closes for maintenance in 60 s: new maps");
        assert_eq!(warning(Duration::from_secs(1), ""), "This world closes for maintenance in 1 s");
    }
}
