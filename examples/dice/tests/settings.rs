//! The backend's own section of the settings.

use std::process::Command;

#[test]
fn unknown_setting_of_backend_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_shardkeep-example-dice"))
        .args(["--set", "daemon.name=dice", "--set", "backend.sides=6", "--check-config"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("sides"), "{}: {stderr}", output.status);
}
