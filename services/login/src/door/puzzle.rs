//! Puzzles: under load each `Hello` must carry the answer to a puzzle that was made for it. The server keeps only the used
//! answers, for as long as they would be valid.

use std::collections::HashSet;

use parking_lot::Mutex;
use shardkeep_auth::{
    Key,
    puzzle::{PuzzleIssuer, TOKEN, Token, split},
};
use shardkeep_daemon::Origin;
use shardkeep_wire::payload;

use crate::{
    config::{Puzzle as Config, PuzzleMode},
    metrics,
};

/// How far the clocks of replicas may differ, in milliseconds.
const SKEW_MS: u64 = 5_000;

pub(crate) struct Puzzles {
    config: Config,
    maker: PuzzleIssuer,
    used: Mutex<UsedAnswers>,
}

impl Puzzles {
    /// All replicas must use the same `seed`.
    pub(crate) fn new(config: Config, seed: Key) -> Self {
        let lifetime = u64::try_from(config.lifetime.as_millis()).unwrap_or(u64::MAX);
        let used = UsedAnswers::new(lifetime.saturating_add(SKEW_MS), config.max_entries);
        Self { config, maker: PuzzleIssuer::new(seed), used: Mutex::new(used) }
    }

    /// Zero bits that a puzzle asks for at this load; `None`: no puzzle is needed.
    pub(crate) fn bits(&self, load: f64) -> Option<u32> {
        let Config { mode, from, least_bits, most_bits, .. } = self.config;
        let above = match mode {
            PuzzleMode::Never => return None,
            PuzzleMode::Auto if load < from => return None,
            PuzzleMode::Auto | PuzzleMode::Always => ((load - from) / (1.0 - from)).clamp(0.0, 1.0),
        };
        let more = (f64::from(most_bits - least_bits) * above).round();
        Some((least_bits + more as u32).min(most_bits))
    }

    /// Checks the payload of a `Hello`. Returns the puzzle that the client must solve first; `None`: the `Hello` may
    /// proceed.
    pub(crate) fn evaluate(
        &self,
        load: f64,
        origin: Origin,
        payload: &[u8],
        now_ms: u64,
    ) -> Option<payload::Puzzle> {
        let bits = self.bits(load)?;
        let (hello, answer) = split(payload);
        let outcome = match answer
            .map(|answer| self.maker.check(&origin.octets(), hello, answer, now_ms, self.config.lifetime))
        {
            None => "asked",
            Some(Err(error)) => error.label(),
            Some(Ok(token)) => match self.used.lock().take(&token, now_ms) {
                Ok(()) => {
                    metrics::puzzle("solved");
                    return None;
                }
                Err(outcome) => outcome,
            },
        };
        metrics::puzzle(outcome);
        let token = self.maker.make(&origin.octets(), hello, now_ms, bits).to_vec();
        Some(payload::Puzzle { token, bits })
    }
}

/// The answers used lately, in two generations: one is filled while the other is still checked. Bound: `most` in all.
/// Overflow: all are forgotten, and every puzzle that was made before counts as used.
///
/// Times are of this machine's clock. If the clock is set back, they move back with it. A puzzle from before can then be
/// answered twice at most, and other clients notice nothing.
struct UsedAnswers {
    /// The clock at the last check.
    seen_ms: u64,
    generation_ms: u64,
    most: usize,
    begun_ms: u64,
    new: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
    void_until_ms: u64,
}

impl UsedAnswers {
    fn new(generation_ms: u64, most: usize) -> Self {
        let (new, old) = (HashSet::new(), HashSet::new());
        Self { seen_ms: 0, generation_ms, most, begun_ms: 0, new, old, void_until_ms: 0 }
    }

    fn take(&mut self, token: &Token, now_ms: u64) -> Result<(), &'static str> {
        let made_ms = u64::from_le_bytes(*token.first_chunk().unwrap_or(&[0; 8]));
        let seal: [u8; 16] = *token.last_chunk().unwrap_or(&[0; 16]);
        const { assert!(TOKEN == 8 + 1 + 16) };
        self.sync_clock(now_ms);
        let age = now_ms.saturating_sub(self.begun_ms);
        if age >= self.generation_ms {
            self.old = std::mem::take(&mut self.new);
            if age >= self.generation_ms.saturating_mul(2) {
                self.old.clear();
            }
            self.begun_ms = now_ms;
        }
        if made_ms <= self.void_until_ms {
            return Err("forgotten");
        }
        if self.old.contains(&seal) || !self.new.insert(seal) {
            return Err("used");
        }
        if self.new.len() + self.old.len() > self.most {
            self.new = HashSet::new();
            self.old = HashSet::new();
            // This includes the puzzle of the current client, which proceeds.
            self.void_until_ms = now_ms.max(made_ms);
        }
        Ok(())
    }

    /// Threads may arrive in another order than they read the clock. Such a small difference is not a step of the clock.
    fn sync_clock(&mut self, now_ms: u64) {
        let back = self.seen_ms.saturating_sub(now_ms);
        if back > SKEW_MS {
            self.begun_ms = self.begun_ms.saturating_sub(back);
            self.void_until_ms = self.void_until_ms.saturating_sub(back);
            self.seen_ms = now_ms;
        }
        self.seen_ms = self.seen_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardkeep_auth::puzzle::solve;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn puzzles(config: &Config) -> Puzzles {
        Puzzles::new(Config { least_bits: 2, most_bits: 10, ..config.clone() }, Key::new([7; 32]))
    }

    fn origin(last: u8) -> Origin {
        Origin::of([10, 0, 0, last].into())
    }

    /// `hello` with the answer to a puzzle appended.
    fn answered(hello: &[u8], puzzle: &payload::Puzzle) -> Vec<u8> {
        let answer = solve(&puzzle.token, puzzle.bits).unwrap();
        [hello, &[0x7a, 33], &answer].concat()
    }

    #[test]
    fn puzzle_bits_rise_with_load() {
        let puzzles = puzzles(&Config::default());
        let bits = [0.0, 0.49, 0.5, 0.75, 1.0].map(|load| puzzles.bits(load));
        assert_eq!(bits, [None, None, Some(2), Some(6), Some(10)]);
        let always = self::puzzles(&Config { mode: PuzzleMode::Always, ..Config::default() });
        assert_eq!(always.bits(0.0), Some(2));
        assert_eq!(always.bits(1.0), Some(10));
        let never = self::puzzles(&Config { mode: PuzzleMode::Never, ..Config::default() });
        assert_eq!(never.bits(1.0), None);
    }

    #[test]
    fn puzzle_answer_is_valid_once_and_for_its_client() {
        let puzzles = puzzles(&Config::default());
        let evaluate = |from, payload: &[u8], now| puzzles.evaluate(0.8, origin(from), payload, now);
        assert!(puzzles.evaluate(0.1, origin(1), b"hello", NOW).is_none(), "the load is low");
        let puzzle = evaluate(1, b"hello", NOW).unwrap();
        let payload = answered(b"hello", &puzzle);
        assert!(evaluate(2, &payload, NOW).is_some(), "another address");
        assert!(evaluate(1, &answered(b"other", &puzzle), NOW).is_some(), "another Hello");
        assert!(evaluate(1, &payload, NOW + 1_000).is_none());
        assert!(evaluate(1, &payload, NOW + 1_001).is_some(), "used");
        assert!(evaluate(1, &payload, NOW + 60_000).is_some(), "too old");
        // The puzzle that replaces an expired one can be solved.
        let again = evaluate(1, &payload, NOW + 60_000).unwrap();
        assert!(evaluate(1, &answered(b"hello", &again), NOW + 60_001).is_none());
    }

    #[test]
    fn used_puzzle_answer_is_refused_for_its_lifetime() {
        let puzzles = puzzles(&Config::default());
        let lifetime = u64::try_from(Config::default().lifetime.as_millis()).unwrap();
        for start in (0..4).map(|turn| NOW + turn * 17_000) {
            let puzzle = puzzles.evaluate(0.5, origin(1), b"hello", start).unwrap();
            let payload = answered(b"hello", &puzzle);
            assert!(puzzles.evaluate(0.5, origin(1), &payload, start).is_none());
            for later in [1, lifetime / 2, lifetime] {
                assert!(puzzles.evaluate(0.5, origin(1), &payload, start + later).is_some());
            }
        }
    }

    #[test]
    fn used_answers_overflow_does_not_allow_reuse() {
        let puzzles = puzzles(&Config { max_entries: 16, ..Config::default() });
        let mut spent = Vec::new();
        for turn in 0..100u64 {
            let now = NOW + turn * 10;
            let puzzle = puzzles.evaluate(0.5, origin(1), b"hello", now).unwrap();
            let payload = answered(b"hello", &puzzle);
            assert!(puzzles.evaluate(0.5, origin(1), &payload, now + 5).is_none());
            spent.push(payload);
            let used = puzzles.used.lock();
            assert!(used.new.len() + used.old.len() <= 16);
        }
        for payload in spent {
            assert!(puzzles.evaluate(0.5, origin(1), &payload, NOW + 1_000).is_some());
        }
        assert_eq!(puzzles.config.lifetime, Duration::from_secs(30));
    }

    #[test]
    fn clock_set_back_after_overflow_still_admits_clients() {
        let puzzles = puzzles(&Config { max_entries: 4, ..Config::default() });
        let passes = |now: u64| {
            let puzzle = puzzles.evaluate(0.5, origin(1), b"hello", now).unwrap();
            puzzles.evaluate(0.5, origin(1), &answered(b"hello", &puzzle), now + 1).is_none()
        };
        assert!((0..20).all(|turn| passes(NOW + turn * 10)));
        let back = NOW - 3_600_000;
        // The first client after the step may get a second puzzle; later clients do not.
        passes(back);
        assert!((1..20).all(|turn| passes(back + turn * 10)));
        // A difference within the skew is not a step.
        let now = back + 1_000;
        let puzzle = puzzles.evaluate(0.5, origin(1), b"hello", now).unwrap();
        let payload = answered(b"hello", &puzzle);
        assert!(puzzles.evaluate(0.5, origin(1), &payload, now).is_none());
        for now in [now - 1_000, now].repeat(100) {
            assert!(puzzles.evaluate(0.5, origin(1), &payload, now).is_some());
        }
    }
}
