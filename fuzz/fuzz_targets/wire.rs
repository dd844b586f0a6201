//! Everything that reads a player's bytes, at once.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::decode_all(bytes));
