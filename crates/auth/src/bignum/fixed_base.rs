//! Powers of one constant base. With a table of them, a 256-bit exponent costs 64 multiplications and no squaring, a
//! fifth of a general exponentiation (the fixed-base windowing method, Handbook of Applied Cryptography, 14.109,
//! with windows of four bits).

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{ArithmeticError, Context, Modulus, Number};

/// Longest exponent that the table supports.
const EXPONENT_BYTES: usize = 32;
const WINDOWS: usize = EXPONENT_BYTES * 2;
const ENTRIES: usize = 16;

/// `base ^ (digit · 16^window)` for every window and digit, in Montgomery form: 256 KiB for a modulus of 2048 bits,
/// 384 KiB for 3072, 512 KiB for 4096.
pub(crate) struct FixedBase {
    /// Consecutive entries, little-endian.
    table: Vec<u8>,
    /// Bytes of one entry.
    width: usize,
}

impl FixedBase {
    pub(crate) fn new(modulus: &Modulus, base: &Number) -> Result<Self, ArithmeticError> {
        let (width, scratch) = (modulus.width(), Context::new()?);
        let mut table = vec![0; WINDOWS * ENTRIES * width];
        let mut step = modulus.to_montgomery(base)?;
        for window in table.chunks_exact_mut(ENTRIES * width) {
            let mut entry = modulus.to_montgomery(&Number::from_bytes(&[1])?)?;
            for bytes in window.chunks_exact_mut(width) {
                entry.fill_little_endian(bytes)?;
                modulus.multiply_montgomery(&mut entry, &step, &scratch)?;
            }
            step = entry;
        }
        Ok(Self { table, width })
    }

    /// `base ^ exponent`, with time and memory accesses that do not depend on the exponent. `None`: the exponent is
    /// longer than the table supports.
    pub(crate) fn power(
        &self,
        modulus: &Modulus,
        exponent: &Number,
    ) -> Result<Option<Number>, ArithmeticError> {
        if exponent.byte_length() > EXPONENT_BYTES {
            return Ok(None);
        }
        let mut digits = Zeroizing::new([0; EXPONENT_BYTES]);
        exponent.fill_little_endian(&mut *digits)?;
        let digits = digits.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        let windows = self.table.chunks_exact(ENTRIES * self.width);
        let (mut chosen, scratch) = (Zeroizing::new(vec![0; self.width]), Context::new()?);
        let mut product = modulus.to_montgomery(&Number::from_bytes(&[1])?)?;
        let mut factor = Number::zero()?;
        for (window, digit) in windows.zip(digits) {
            self.choose(window, digit, &mut chosen);
            factor.set_little_endian(&chosen)?;
            modulus.multiply_montgomery(&mut product, &factor, &scratch)?;
        }
        modulus.out_of_montgomery(&product).map(Some)
    }

    /// Reads every entry and keeps one, so that the cache does not reveal the selection.
    fn choose(&self, window: &[u8], digit: u8, chosen: &mut [u8]) {
        chosen.fill(0);
        for (entry, number) in window.chunks_exact(self.width).zip(0u8..) {
            let mask = number.ct_eq(&digit).unwrap_u8().wrapping_neg();
            chosen.iter_mut().zip(entry).for_each(|(byte, entry)| *byte |= entry & mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{WorkCounter, srp::Group};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn fixed_base_power_matches_plain_exponentiation(
            exponent in prop::collection::vec(any::<u8>(), 0..=EXPONENT_BYTES),
            group in 0usize..3,
        ) {
            let parameters = Group::ALL[group].parameters();
            let exponent = Number::from_bytes(&exponent).unwrap();
            let long = parameters.n.power(&parameters.g, &exponent, &mut WorkCounter::default()).unwrap();
            let short = parameters.powers_of_g.power(&parameters.n, &exponent).unwrap().unwrap();
            prop_assert_eq!(short.to_bytes(), long.to_bytes());
        }
    }

    #[test]
    fn fixed_base_power_handles_extreme_exponents() {
        let modulus = Modulus::new(&[1, 0, 0, 0, 0, 0, 0, 0, 13]).unwrap();
        let table = FixedBase::new(&modulus, &Number::from_bytes(&[3]).unwrap()).unwrap();
        for exponent in [vec![], vec![1], vec![0xff; 32], [&[0x80][..], &[0; 31]].concat()] {
            let exponent = Number::from_bytes(&exponent).unwrap();
            let long = modulus
                .power(&Number::from_bytes(&[3]).unwrap(), &exponent, &mut WorkCounter::default())
                .unwrap();
            assert_eq!(table.power(&modulus, &exponent).unwrap().unwrap().to_bytes(), long.to_bytes());
        }
        let longer = Number::from_bytes(&[1; 33]).unwrap();
        assert!(table.power(&modulus, &longer).unwrap().is_none());
    }
}
