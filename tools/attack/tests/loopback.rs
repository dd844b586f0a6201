//! The tool attacks this machine only.

use std::process::Command;

#[test]
fn non_loopback_target_is_refused() {
    for address in ["192.0.2.1:53", "[2001:db8::1]:53", "0.0.0.0:53"] {
        let refused =
            Command::new(env!("CARGO_BIN_EXE_shardkeep-attack")).args(["--dns", address]).output().unwrap();
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{address}: {stderr}");
        assert!(stderr.contains("is not a loopback address"), "{stderr}");
    }
}
