//! Random numbers that choose among replicas. They distribute load; a client that predicts them gains nothing.

use shardkeep_daemon::random_u64;

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Equal seeds yield equal numbers.
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero.
        Self(seed | 1)
    }

    pub(crate) fn from_entropy() -> Self {
        Self::new(random_u64())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A uniform number in `0..bound`. The bias of the reduction is below 2⁻³².
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}
