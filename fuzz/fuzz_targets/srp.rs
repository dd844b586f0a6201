//! Both sides of SRP, and account names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    shardkeep_auth::fuzz::srp(bytes);
    shardkeep_auth::fuzz::names(bytes);
});
