//! A packet from a stranger to the name server, and its answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_dns::fuzz::answer(bytes));
