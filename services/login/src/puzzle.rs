//! Who must work before this daemon does: under load each `Hello` must bring the answer to a puzzle that was made for
//! it. Nothing is kept but the answers already used, as long as they could be used again.

use std::collections::HashSet;

use parking_lot::Mutex;
use shardkeep_auth::{
    Key,
    puzzle::{Maker, TOKEN, Token, split},
};
use shardkeep_daemon::Origin;
use shardkeep_wire::payload;

use crate::{
    config::{Puzzle as Config, PuzzleMode},
    metrics,
};

/// How far ahead the clocks of other replicas may be, beside the life of a puzzle.
const SKEW_MS: u64 = 5_000;

pub(crate) struct Puzzles {
    config: Config,
    maker: Maker,
    used: Mutex<Used>,
}

impl Puzzles {
    /// `seed` is the same on all replicas.
    pub(crate) fn new(config: Config, seed: Key) -> Self {
        let lives = u64::try_from(config.lives.as_millis()).unwrap_or(u64::MAX);
        let used = Used::new(lives.saturating_add(SKEW_MS), config.remembered);
        Self { config, maker: Maker::new(seed), used: Mutex::new(used) }
    }

    /// What a client must work for at this load; `None`: nothing.
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

    /// Judges the payload of a `Hello`. A puzzle is to be solved first; `None`: it may pass.
    pub(crate) fn judge(
        &self,
        load: f64,
        origin: Origin,
        payload: &[u8],
        now_ms: u64,
    ) -> Option<payload::Puzzle> {
        let bits = self.bits(load)?;
        let (hello, answer) = split(payload);
        let outcome = match answer
            .map(|answer| self.maker.check(&origin.octets(), hello, answer, now_ms, self.config.lives))
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

/// The answers used lately, in two generations: one is filled while the other can still be asked. Bound:
/// `most` in all. Overflow: everything is forgotten, and what was given out until then counts as used.
///
/// All moments are of this machine's clock. Where that is set back they go back with it: what was given out before can
/// then be answered a second time at most, and everybody else goes on.
struct Used {
    /// The clock when it was last looked at.
    seen_ms: u64,
    generation_ms: u64,
    most: usize,
    begun_ms: u64,
    new: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
    void_until_ms: u64,
}

impl Used {
    fn new(generation_ms: u64, most: usize) -> Self {
        let (new, old) = (HashSet::new(), HashSet::new());
        Self { seen_ms: 0, generation_ms, most, begun_ms: 0, new, old, void_until_ms: 0 }
    }

    fn take(&mut self, token: &Token, now_ms: u64) -> Result<(), &'static str> {
        let made_ms = u64::from_le_bytes(*token.first_chunk().unwrap_or(&[0; 8]));
        let seal: [u8; 16] = *token.last_chunk().unwrap_or(&[0; 16]);
        const { assert!(TOKEN == 8 + 1 + 16) };
        self.keep_time(now_ms);
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
            // This one too, though its client has just been let in.
            self.void_until_ms = now_ms.max(made_ms);
        }
        Ok(())
    }

    /// Two threads may come in another order than they looked at the clock; that is no step.
    fn keep_time(&mut self, now_ms: u64) {
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

    /// The payload with the answer to a puzzle.
    fn answered(hello: &[u8], puzzle: &payload::Puzzle) -> Vec<u8> {
        let answer = solve(&puzzle.token, puzzle.bits).unwrap();
        [hello, &[0x7a, 33], &answer].concat()
    }

    #[test]
    fn the_price_rises_with_the_load() {
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
    fn an_answer_serves_once_and_for_its_client_only() {
        let puzzles = puzzles(&Config::default());
        let judge = |from, payload: &[u8], now| puzzles.judge(0.8, origin(from), payload, now);
        assert!(puzzles.judge(0.1, origin(1), b"hello", NOW).is_none(), "nobody waits");
        let puzzle = judge(1, b"hello", NOW).unwrap();
        let payload = answered(b"hello", &puzzle);
        assert!(judge(2, &payload, NOW).is_some(), "another address");
        assert!(judge(1, &answered(b"other", &puzzle), NOW).is_some(), "another Hello");
        assert!(judge(1, &payload, NOW + 1_000).is_none());
        assert!(judge(1, &payload, NOW + 1_001).is_some(), "used");
        assert!(judge(1, &payload, NOW + 60_000).is_some(), "too old");
        // What is asked for instead can be answered.
        let again = judge(1, &payload, NOW + 60_000).unwrap();
        assert!(judge(1, &answered(b"hello", &again), NOW + 60_001).is_none());
    }

    #[test]
    fn used_answers_stay_used_as_long_as_they_live() {
        let puzzles = puzzles(&Config::default());
        let lives = u64::try_from(Config::default().lives.as_millis()).unwrap();
        for start in (0..4).map(|turn| NOW + turn * 17_000) {
            let puzzle = puzzles.judge(0.5, origin(1), b"hello", start).unwrap();
            let payload = answered(b"hello", &puzzle);
            assert!(puzzles.judge(0.5, origin(1), &payload, start).is_none());
            for later in [1, lives / 2, lives] {
                assert!(puzzles.judge(0.5, origin(1), &payload, start + later).is_some());
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_taken_twice_for_it() {
        let puzzles = puzzles(&Config { remembered: 16, ..Config::default() });
        let mut spent = Vec::new();
        for turn in 0..100u64 {
            let now = NOW + turn * 10;
            let puzzle = puzzles.judge(0.5, origin(1), b"hello", now).unwrap();
            let payload = answered(b"hello", &puzzle);
            assert!(puzzles.judge(0.5, origin(1), &payload, now + 5).is_none());
            spent.push(payload);
            let used = puzzles.used.lock();
            assert!(used.new.len() + used.old.len() <= 16);
        }
        for payload in spent {
            assert!(puzzles.judge(0.5, origin(1), &payload, NOW + 1_000).is_some());
        }
        assert_eq!(puzzles.config.lives, Duration::from_secs(30));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_after_an_overflow() {
        let puzzles = puzzles(&Config { remembered: 4, ..Config::default() });
        let passes = |now: u64| {
            let puzzle = puzzles.judge(0.5, origin(1), b"hello", now).unwrap();
            puzzles.judge(0.5, origin(1), &answered(b"hello", &puzzle), now + 1).is_none()
        };
        assert!((0..20).all(|turn| passes(NOW + turn * 10)));
        let back = NOW - 3_600_000;
        // Who is under way at that moment is asked again, and nobody after that.
        passes(back);
        assert!((1..20).all(|turn| passes(back + turn * 10)));
        // A little disorder takes nothing back.
        let now = back + 1_000;
        let puzzle = puzzles.judge(0.5, origin(1), b"hello", now).unwrap();
        let payload = answered(b"hello", &puzzle);
        assert!(puzzles.judge(0.5, origin(1), &payload, now).is_none());
        for now in [now - 1_000, now].repeat(100) {
            assert!(puzzles.judge(0.5, origin(1), &payload, now).is_some());
        }
    }
}
