//! A chunk file of the journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_journal::fuzz(bytes));
