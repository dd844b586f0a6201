//! ML-KEM-768 with its randomness as an argument, which aws-lc-rs does not offer. Nothing but calls of libcrypto on
//! pointers that live as long as the values here.
#![allow(
    unsafe_code,
    reason = "aws-lc-rs draws ML-KEM's randomness itself; this is the one wrapper that does not"
)]

use std::ptr::{self, NonNull};

use aws_lc_sys as sys;
use shardkeep_types::Secret;

use super::ShareError;

pub(super) const KEY_SEED: usize = 64;
pub(super) const ENCAPSULATION_SEED: usize = 32;
pub(super) const ENCAPSULATION_KEY: usize = 1_184;
pub(super) const CIPHERTEXT: usize = 1_088;
const SHARED: usize = 32;

pub(super) struct DecapsulationKey(Key);

impl DecapsulationKey {
    /// The key of this seed, and the encapsulation key that belongs to it.
    pub(super) fn new(seed: &[u8; KEY_SEED]) -> Result<(Self, Vec<u8>), ShareError> {
        // SAFETY: no pointers but the null engine; null is checked.
        let context = Context::of(unsafe { sys::EVP_PKEY_CTX_new_id(sys::EVP_PKEY_KEM, ptr::null_mut()) })?;
        // SAFETY: a live context.
        check(unsafe { sys::EVP_PKEY_CTX_kem_set_params(context.0.as_ptr(), sys::NID_MLKEM768) })?;
        // SAFETY: a live context.
        check(unsafe { sys::EVP_PKEY_keygen_init(context.0.as_ptr()) })?;
        let (mut made, mut length) = (ptr::null_mut(), seed.len());
        // SAFETY: a live context; the seed is read up to its length; the new key is ours.
        let result = unsafe {
            sys::EVP_PKEY_keygen_deterministic(
                context.0.as_ptr(),
                &raw mut made,
                seed.as_ptr(),
                &raw mut length,
            )
        };
        let key = Key::of(made)?;
        check(result)?;
        let (mut public, mut length) = (vec![0; ENCAPSULATION_KEY], ENCAPSULATION_KEY);
        // SAFETY: a live key; at most `length` bytes are written.
        check(unsafe {
            sys::EVP_PKEY_get_raw_public_key(key.0.as_ptr(), public.as_mut_ptr(), &raw mut length)
        })?;
        if length == ENCAPSULATION_KEY { Ok((Self(key), public)) } else { Err(ShareError) }
    }

    /// Any ciphertext of the right size gives a secret; a wrong one gives another than its sender has.
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret<[u8; SHARED]>, ShareError> {
        let context = self.0.context()?;
        let (mut shared, mut length) = ([0; SHARED], SHARED);
        // SAFETY: a live context; the ciphertext is read up to its length, and at most `length` bytes are written.
        check(unsafe {
            sys::EVP_PKEY_decapsulate(
                context.0.as_ptr(),
                shared.as_mut_ptr(),
                &raw mut length,
                ciphertext.as_ptr(),
                ciphertext.len(),
            )
        })?;
        if length == SHARED { Ok(Secret::new(shared)) } else { Err(ShareError) }
    }
}

/// Ciphertext and shared secret. A key that is not one (FIPS 203, section 7.2) is refused.
pub(super) fn encapsulate(
    key: &[u8],
    seed: &[u8; ENCAPSULATION_SEED],
) -> Result<(Vec<u8>, Secret<[u8; SHARED]>), ShareError> {
    // SAFETY: the bytes are read up to their length; null, also for a wrong length, is checked.
    let key =
        Key::of(unsafe { sys::EVP_PKEY_kem_new_raw_public_key(sys::NID_MLKEM768, key.as_ptr(), key.len()) })?;
    let context = key.context()?;
    let (mut ciphertext, mut ciphertext_length) = (vec![0; CIPHERTEXT], CIPHERTEXT);
    let (mut shared, mut shared_length) = ([0; SHARED], SHARED);
    let mut seed_length = seed.len();
    // SAFETY: a live context; the seed is read up to its length, and no more than the two lengths is written.
    check(unsafe {
        sys::EVP_PKEY_encapsulate_deterministic(
            context.0.as_ptr(),
            ciphertext.as_mut_ptr(),
            &raw mut ciphertext_length,
            shared.as_mut_ptr(),
            &raw mut shared_length,
            seed.as_ptr(),
            &raw mut seed_length,
        )
    })?;
    let whole = ciphertext_length == CIPHERTEXT && shared_length == SHARED;
    if whole { Ok((ciphertext, Secret::new(shared))) } else { Err(ShareError) }
}

struct Key(NonNull<sys::EVP_PKEY>);

// SAFETY: an EVP_PKEY is plain memory, owned by this value alone; nothing in it belongs to a thread.
unsafe impl Send for Key {}
// SAFETY: contexts made of a shared key only read it; its reference count is atomic.
unsafe impl Sync for Key {}

impl Key {
    fn of(pointer: *mut sys::EVP_PKEY) -> Result<Self, ShareError> {
        NonNull::new(pointer).map(Self).ok_or(ShareError)
    }

    fn context(&self) -> Result<Context, ShareError> {
        // SAFETY: a live key, which the context holds on to; null is checked.
        Context::of(unsafe { sys::EVP_PKEY_CTX_new(self.0.as_ptr(), ptr::null_mut()) })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the pointer came from libcrypto and is freed once.
        unsafe { sys::EVP_PKEY_free(self.0.as_ptr()) }
    }
}

struct Context(NonNull<sys::EVP_PKEY_CTX>);

impl Context {
    fn of(pointer: *mut sys::EVP_PKEY_CTX) -> Result<Self, ShareError> {
        NonNull::new(pointer).map(Self).ok_or(ShareError)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from libcrypto and is freed once.
        unsafe { sys::EVP_PKEY_CTX_free(self.0.as_ptr()) }
    }
}

fn check(result: std::os::raw::c_int) -> Result<(), ShareError> {
    (result == 1).then_some(()).ok_or(ShareError)
}
