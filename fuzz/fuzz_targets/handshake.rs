//! What a client says to a login server or a gateway that does not know it yet.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shardkeep_wire::fuzz::handshake(bytes));
