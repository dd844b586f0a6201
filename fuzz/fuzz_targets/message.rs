//! The messages of a record, their payloads, movement and cells.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::message(bytes));
