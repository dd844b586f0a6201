//! A stream cut into records, and records opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::records(bytes));
