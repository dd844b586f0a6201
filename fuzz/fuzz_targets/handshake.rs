//! First bytes of an unknown client to a login server or gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::handshake(bytes));
