//! The reliable log of a session.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::session_log(bytes));
