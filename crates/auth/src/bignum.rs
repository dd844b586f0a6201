//! Modular arithmetic on big numbers with aws-lc: as fast as OpenSSL, and constant-time in base and exponent where
//! needed. This is the only module with `unsafe`. It only calls libcrypto with pointers that live as long as `self`.
#![allow(
    unsafe_code,
    reason = "aws-lc-rs exposes no modular exponentiation; this is the one wrapper around it"
)]

mod comb;
mod fixed_base;

use std::ptr::NonNull;

use aws_lc_sys as sys;
use zeroize::Zeroizing;

pub(crate) use comb::Comb;
pub(crate) use fixed_base::FixedBase;

/// Counts modular exponentiations, the expensive part of a login. Metrics use it, and tests compare known with
/// unknown accounts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct WorkCounter {
    pub exponentiations: u32,
}

/// libcrypto is out of memory, or got numbers that this crate never passes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("big-number arithmetic failed")]
pub struct ArithmeticError;

/// A non-negative number. Dropping it wipes its memory.
pub(crate) struct Number(NonNull<sys::BIGNUM>);

// SAFETY: a BIGNUM is plain memory owned by this value. It is not bound to a thread.
unsafe impl Send for Number {}
// SAFETY: `&Number` is only read, and libcrypto's reading functions do not write to their const arguments.
unsafe impl Sync for Number {}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_new and is freed once.
        unsafe { sys::BN_clear_free(self.0.as_ptr()) }
    }
}

impl Number {
    fn zero() -> Result<Self, ArithmeticError> {
        // SAFETY: no arguments; null is checked.
        NonNull::new(unsafe { sys::BN_new() }).map(Self).ok_or(ArithmeticError)
    }

    pub(crate) fn from_bytes(big_endian: &[u8]) -> Result<Self, ArithmeticError> {
        let number = Self::zero()?;
        // SAFETY: reads `len` bytes of the slice and writes into the live number.
        let result = unsafe { sys::BN_bin2bn(big_endian.as_ptr(), big_endian.len(), number.0.as_ptr()) };
        (!result.is_null()).then_some(number).ok_or(ArithmeticError)
    }

    /// Big-endian, without leading zero bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.byte_length()];
        // SAFETY: BN_bn2bin writes exactly BN_num_bytes bytes.
        unsafe { sys::BN_bn2bin(self.0.as_ptr(), bytes.as_mut_ptr()) };
        bytes
    }

    pub(crate) fn byte_length(&self) -> usize {
        // SAFETY: reads the live number.
        unsafe { sys::BN_num_bytes(self.0.as_ptr()) as usize }
    }

    /// Big-endian, padded with leading zero bytes to `length`. Fails if the number is longer.
    pub(crate) fn to_padded(&self, length: usize) -> Result<Vec<u8>, ArithmeticError> {
        let mut bytes = vec![0; length];
        // SAFETY: reads the live number; writes exactly `length` bytes, or fails when the number is longer.
        check(unsafe { sys::BN_bn2bin_padded(bytes.as_mut_ptr(), length, self.0.as_ptr()) })?;
        Ok(bytes)
    }

    fn copy(&self) -> Result<Self, ArithmeticError> {
        let copy = Self::zero()?;
        // SAFETY: both numbers are live.
        let result = unsafe { sys::BN_copy(copy.0.as_ptr(), self.0.as_ptr()) };
        (!result.is_null()).then_some(copy).ok_or(ArithmeticError)
    }

    /// Little-endian, padded with trailing zero bytes to the slice's length.
    fn fill_little_endian(&self, bytes: &mut [u8]) -> Result<(), ArithmeticError> {
        // SAFETY: reads the live number; writes exactly `len` bytes, or fails when the number is longer.
        check(unsafe { sys::BN_bn2le_padded(bytes.as_mut_ptr(), bytes.len(), self.0.as_ptr()) })
    }

    /// `width` words, lowest first.
    fn to_words(&self, width: usize) -> Result<Vec<u64>, ArithmeticError> {
        let mut bytes = Zeroizing::new(vec![0; width * 8]);
        self.fill_little_endian(&mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Replaces the value.
    fn set_little_endian(&mut self, bytes: &[u8]) -> Result<(), ArithmeticError> {
        // SAFETY: reads `len` bytes of the slice and writes into the live number.
        let result = unsafe { sys::BN_le2bn(bytes.as_ptr(), bytes.len(), self.0.as_ptr()) };
        (!result.is_null()).then_some(()).ok_or(ArithmeticError)
    }

    pub(crate) fn is_zero(&self) -> bool {
        // SAFETY: reads the live number.
        unsafe { sys::BN_is_zero(self.0.as_ptr()) == 1 }
    }

    /// `self · factor + summand`, without a modulus.
    pub(crate) fn multiply_add(&self, factor: &Self, summand: &Self) -> Result<Self, ArithmeticError> {
        let (result, context) = (Self::zero()?, Context::new()?);
        // SAFETY: four live numbers and a live context; the result is a separate number.
        check(unsafe {
            sys::BN_mul(result.0.as_ptr(), self.0.as_ptr(), factor.0.as_ptr(), context.0.as_ptr())
        })?;
        // SAFETY: live numbers; BN_add allows its result to be an argument.
        check(unsafe { sys::BN_add(result.0.as_ptr(), result.0.as_ptr(), summand.0.as_ptr()) })?;
        Ok(result)
    }
}

/// Scratch memory of libcrypto for one call.
struct Context(NonNull<sys::BN_CTX>);

impl Context {
    fn new() -> Result<Self, ArithmeticError> {
        // SAFETY: no arguments; null is checked.
        NonNull::new(unsafe { sys::BN_CTX_new() }).map(Self).ok_or(ArithmeticError)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_CTX_new and is freed once.
        unsafe { sys::BN_CTX_free(self.0.as_ptr()) }
    }
}

/// An odd modulus with its precomputed Montgomery context.
pub(crate) struct Modulus {
    number: Number,
    montgomery: NonNull<sys::BN_MONT_CTX>,
}

// SAFETY: both parts are written once, in `new`, and only read afterwards. They are not bound to a thread.
unsafe impl Send for Modulus {}
// SAFETY: as above; libcrypto takes the Montgomery context as const.
unsafe impl Sync for Modulus {}

impl Drop for Modulus {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_MONT_CTX_new_for_modulus and is freed once.
        unsafe { sys::BN_MONT_CTX_free(self.montgomery.as_ptr()) }
    }
}

impl Modulus {
    pub(crate) fn new(big_endian: &[u8]) -> Result<Self, ArithmeticError> {
        let (number, context) = (Number::from_bytes(big_endian)?, Context::new()?);
        // SAFETY: live number and context; null, also for an even modulus, is checked.
        let montgomery =
            NonNull::new(unsafe { sys::BN_MONT_CTX_new_for_modulus(number.0.as_ptr(), context.0.as_ptr()) });
        Ok(Self { number, montgomery: montgomery.ok_or(ArithmeticError)? })
    }

    /// `base ^ exponent`, in time that depends only on the exponent's length. `base` must be reduced.
    pub(crate) fn power(
        &self,
        base: &Number,
        exponent: &Number,
        work: &mut WorkCounter,
    ) -> Result<Number, ArithmeticError> {
        work.exponentiations += 1;
        let (result, context) = (Number::zero()?, Context::new()?);
        // SAFETY: live numbers, context and Montgomery context; the latter belongs to this modulus. The function
        // itself refuses a base that is not reduced.
        check(unsafe {
            sys::BN_mod_exp_mont_consttime(
                result.0.as_ptr(),
                base.0.as_ptr(),
                exponent.0.as_ptr(),
                self.number.0.as_ptr(),
                context.0.as_ptr(),
                self.montgomery.as_ptr(),
            )
        })?;
        Ok(result)
    }

    /// Length of the modulus in bytes, rounded up to whole words.
    fn width(&self) -> usize {
        self.number.byte_length().next_multiple_of(8)
    }

    /// Converts to Montgomery form. `number` must be reduced.
    fn to_montgomery(&self, number: &Number) -> Result<Number, ArithmeticError> {
        self.convert(sys::BN_to_montgomery, number)
    }

    /// Converts from Montgomery form.
    fn out_of_montgomery(&self, number: &Number) -> Result<Number, ArithmeticError> {
        self.convert(sys::BN_from_montgomery, number)
    }

    /// Multiplies two numbers in Montgomery form. The product replaces the first.
    fn multiply_montgomery(
        &self,
        a: &mut Number,
        b: &Number,
        scratch: &Context,
    ) -> Result<(), ArithmeticError> {
        self.montgomery_product(a.0, a.0, b.0, scratch)
    }

    /// Like [`Self::multiply_montgomery`] with the number itself.
    fn square_montgomery(&self, a: &mut Number, scratch: &Context) -> Result<(), ArithmeticError> {
        self.montgomery_product(a.0, a.0, a.0, scratch)
    }

    fn montgomery_product(
        &self,
        result: NonNull<sys::BIGNUM>,
        a: NonNull<sys::BIGNUM>,
        b: NonNull<sys::BIGNUM>,
        scratch: &Context,
    ) -> Result<(), ArithmeticError> {
        // SAFETY: the callers own or borrow the three numbers, the result mutably; the context and the Montgomery
        // context are live. The function allows its result to be a factor, and a factor to be both.
        check(unsafe {
            sys::BN_mod_mul_montgomery(
                result.as_ptr(),
                a.as_ptr(),
                b.as_ptr(),
                self.montgomery.as_ptr(),
                scratch.0.as_ptr(),
            )
        })
    }

    fn convert(&self, operation: Conversion, number: &Number) -> Result<Number, ArithmeticError> {
        let (result, context) = (Number::zero()?, Context::new()?);
        // SAFETY: both operations of this signature read a live number and write the result, also live, with a
        // live context and the modulus' own Montgomery context.
        check(unsafe {
            operation(result.0.as_ptr(), number.0.as_ptr(), self.montgomery.as_ptr(), context.0.as_ptr())
        })?;
        Ok(result)
    }

    pub(crate) fn multiply(&self, a: &Number, b: &Number) -> Result<Number, ArithmeticError> {
        self.binary(sys::BN_mod_mul, a, b)
    }

    pub(crate) fn add(&self, a: &Number, b: &Number) -> Result<Number, ArithmeticError> {
        self.binary(sys::BN_mod_add, a, b)
    }

    pub(crate) fn subtract(&self, a: &Number, b: &Number) -> Result<Number, ArithmeticError> {
        self.binary(sys::BN_mod_sub, a, b)
    }

    pub(crate) fn reduce(&self, a: &Number) -> Result<Number, ArithmeticError> {
        let (result, context) = (Number::zero()?, Context::new()?);
        // SAFETY: live numbers and context.
        check(unsafe {
            sys::BN_nnmod(result.0.as_ptr(), a.0.as_ptr(), self.number.0.as_ptr(), context.0.as_ptr())
        })?;
        Ok(result)
    }

    fn binary(&self, operation: Binary, a: &Number, b: &Number) -> Result<Number, ArithmeticError> {
        let (result, context) = (Number::zero()?, Context::new()?);
        // SAFETY: all three operations of this signature read a, b and the modulus and write the result, all live.
        check(unsafe {
            operation(
                result.0.as_ptr(),
                a.0.as_ptr(),
                b.0.as_ptr(),
                self.number.0.as_ptr(),
                context.0.as_ptr(),
            )
        })?;
        Ok(result)
    }
}

type Binary = unsafe extern "C" fn(
    *mut sys::BIGNUM,
    *const sys::BIGNUM,
    *const sys::BIGNUM,
    *const sys::BIGNUM,
    *mut sys::BN_CTX,
) -> std::os::raw::c_int;

type Conversion = unsafe extern "C" fn(
    *mut sys::BIGNUM,
    *const sys::BIGNUM,
    *const sys::BN_MONT_CTX,
    *mut sys::BN_CTX,
) -> std::os::raw::c_int;

fn check(result: std::os::raw::c_int) -> Result<(), ArithmeticError> {
    (result == 1).then_some(()).ok_or(ArithmeticError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u64) -> Number {
        Number::from_bytes(&value.to_be_bytes()).unwrap()
    }

    fn value(number: &Number) -> u64 {
        number.to_bytes().iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    #[test]
    fn modulus_arithmetic_matches_small_values() {
        let seven = Modulus::new(&[7]).unwrap();
        let mut work = WorkCounter::default();
        assert_eq!(value(&seven.power(&number(3), &number(5), &mut work).unwrap()), 5);
        assert_eq!(work.exponentiations, 1);
        assert_eq!(value(&seven.multiply(&number(5), &number(6)).unwrap()), 2);
        assert_eq!(value(&seven.add(&number(5), &number(6)).unwrap()), 4);
        assert_eq!(value(&seven.subtract(&number(5), &number(6)).unwrap()), 6);
        assert_eq!(value(&seven.reduce(&number(700)).unwrap()), 0);
        assert!(seven.reduce(&number(700)).unwrap().is_zero());
        assert_eq!(value(&number(3).multiply_add(&number(500), &number(9)).unwrap()), 1509);
    }

    #[test]
    fn to_bytes_drops_leading_zeros() {
        assert_eq!(number(0x0102).to_bytes(), [1, 2]);
        assert!(number(0).to_bytes().is_empty());
    }

    #[test]
    fn even_modulus_and_unreduced_base_are_errors() {
        assert!(Modulus::new(&[8]).is_err(), "an even modulus");
        let seven = Modulus::new(&[7]).unwrap();
        assert!(
            seven.power(&number(9), &number(2), &mut WorkCounter::default()).is_err(),
            "a base that is not reduced"
        );
    }
}
