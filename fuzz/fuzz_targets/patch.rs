//! Everything that reads what a patch server says: `cargo +nightly fuzz run patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_patch::fuzz::decode_all(bytes));
