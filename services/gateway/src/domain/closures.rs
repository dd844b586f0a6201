//! Worlds that operators have closed, as login reports them. Players in a closed world are warned once and disconnected
//! when the time is up, however they came there. Staff stay.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_rpc::accounts as proto;
use shardkeep_types::{AccountId, SessionId, WorldId};
use shardkeep_wire::payload::ErrorCode;

use super::session::{Ending, Session};

#[derive(Default)]
pub(crate) struct Closures(Mutex<State>);

#[derive(Default)]
struct State {
    worlds: HashMap<WorldId, Closure>,
    staff: HashSet<AccountId>,
    /// The closure of which each session has been warned. Holds only sessions that are here.
    warned: HashMap<SessionId, u64>,
}

struct Closure {
    /// Names the closure: another time is another closure.
    id: u64,
    note: String,
    ends: Instant,
}

/// The action that follows for a session.
pub(crate) enum ClosureEffect {
    /// Show this line to the player.
    Warn(String),
    End(Ending),
}

/// The meaning of a closure for a session.
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

/// Longest time that a closure gives.
const MAX_CLOSURE_TIME: Duration = Duration::from_hours(24);

impl Closures {
    /// Replaces the list of closed worlds.
    pub(crate) fn update(&self, closures: proto::Closures, now: Instant) {
        self.0.lock().update(closures, now);
    }

    /// Actions for these sessions, which are all that are here. Call it every second or so.
    pub(crate) fn due<'a>(
        &self,
        sessions: &'a [Arc<Session>],
        now: Instant,
    ) -> Vec<(&'a Arc<Session>, ClosureEffect)> {
        let mut state = self.0.lock();
        if state.worlds.is_empty() {
            return Vec::new();
        }
        let here: HashSet<SessionId> = sessions.iter().map(|session| session.id()).collect();
        state.warned.retain(|session, _| here.contains(session));
        let mut due = Vec::new();
        for session in sessions {
            match state.decide(session.id(), session.account(), session.world(), now) {
                None => {}
                Some((Verdict::Warn(remaining), note)) => {
                    due.push((session, ClosureEffect::Warn(warning(remaining, note))));
                }
                Some((Verdict::Disconnect, note)) => {
                    due.push((session, ClosureEffect::End(Ending::new(ErrorCode::Maintenance, note))));
                }
            }
        }
        due
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
        // Login repeats the closure.
        state.update(closures(1, 100, 50_000), later(10));
        assert_eq!(verdict(&mut state, 7, 1, later(10)), None, "the session was warned");
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
