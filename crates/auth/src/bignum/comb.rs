//! Powers of a base that returns with each login of an account, to public exponents. With three stored powers of the
//! base, a 256-bit exponent costs 64 squarings and 64 multiplications, two fifths of a general exponentiation (the
//! fixed-base comb method, Handbook of Applied Cryptography, 14.117, with four rows).

use super::{ArithmeticError, Context, Modulus, Number};

const ROW_BITS: usize = 64;

/// The product of each subset of rows, in Montgomery form.
pub(crate) struct Comb(Vec<Number>);

impl Comb {
    /// Parts of an exponent, one word each.
    pub(crate) const ROWS: usize = 4;

    /// `base ^ (2^64)`, `base ^ (2^128)` and `base ^ (2^192)`: the stored powers of a base. The base must be
    /// reduced.
    pub(crate) fn rows(modulus: &Modulus, base: &Number) -> Result<Vec<Number>, ArithmeticError> {
        let (mut power, scratch) = (modulus.to_montgomery(base)?, Context::new()?);
        let row = |_| {
            for _ in 0..ROW_BITS {
                modulus.square_montgomery(&mut power, &scratch)?;
            }
            modulus.out_of_montgomery(&power)
        };
        (1..Self::ROWS).map(row).collect()
    }

    /// Builds a comb from the base and its [rows](Self::rows), all reduced.
    pub(crate) fn new(modulus: &Modulus, base: &Number, rows: &[Number]) -> Result<Self, ArithmeticError> {
        let scratch = Context::new()?;
        let mut products = vec![modulus.to_montgomery(&Number::from_bytes(&[1])?)?];
        for row in std::iter::once(base).chain(rows) {
            let row = modulus.to_montgomery(row)?;
            for choice in 0..products.len() {
                let mut product = products[choice].copy()?;
                modulus.multiply_montgomery(&mut product, &row, &scratch)?;
                products.push(product);
            }
        }
        Ok(Self(products))
    }

    /// `base ^ exponent`. The time reveals the exponent, which must therefore be public, but not the base. `None`:
    /// the exponent is longer than the rows.
    pub(crate) fn power(
        &self,
        modulus: &Modulus,
        exponent: &Number,
    ) -> Result<Option<Number>, ArithmeticError> {
        if exponent.byte_length() > Self::ROWS * ROW_BITS / 8 {
            return Ok(None);
        }
        let (words, scratch) = (exponent.to_words(Self::ROWS)?, Context::new()?);
        let mut power = self.0[0].copy()?;
        for bit in (0..ROW_BITS).rev() {
            let choice = words.iter().rev().fold(0, |choice, word| choice << 1 | (word >> bit & 1) as usize);
            modulus.square_montgomery(&mut power, &scratch)?;
            if choice > 0 {
                modulus.multiply_montgomery(&mut power, &self.0[choice], &scratch)?;
            }
        }
        modulus.out_of_montgomery(&power).map(Some)
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
        fn comb_power_matches_plain_exponentiation(
            base in prop::collection::vec(any::<u8>(), 1..=255),
            exponent in prop::collection::vec(any::<u8>(), 0..=32),
            group in 0usize..3,
        ) {
            let n = &Group::ALL[group].parameters().n;
            let [base, exponent] = [base, exponent].map(|bytes| Number::from_bytes(&bytes).unwrap());
            let long = n.power(&base, &exponent, &mut WorkCounter::default()).unwrap();
            let comb = Comb::new(n, &base, &Comb::rows(n, &base).unwrap()).unwrap();
            prop_assert_eq!(comb.power(n, &exponent).unwrap().unwrap().to_bytes(), long.to_bytes());
        }
    }

    #[test]
    fn comb_power_handles_extreme_exponents() {
        let modulus = Modulus::new(&[1, 0, 0, 0, 0, 0, 0, 0, 13]).unwrap();
        let base = Number::from_bytes(&[3]).unwrap();
        let comb = Comb::new(&modulus, &base, &Comb::rows(&modulus, &base).unwrap()).unwrap();
        for exponent in [vec![], vec![1], vec![2], vec![0xff; 32], [&[0x80][..], &[0; 31]].concat()] {
            let exponent = Number::from_bytes(&exponent).unwrap();
            let long = modulus.power(&base, &exponent, &mut WorkCounter::default()).unwrap();
            assert_eq!(comb.power(&modulus, &exponent).unwrap().unwrap().to_bytes(), long.to_bytes());
        }
        assert!(comb.power(&modulus, &Number::from_bytes(&[1; 33]).unwrap()).unwrap().is_none());
    }
}
