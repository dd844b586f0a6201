//! Tickets and the proofs of attach and resume.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_auth::fuzz::ticket(bytes));
