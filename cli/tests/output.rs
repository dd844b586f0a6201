//! What the tool prints, and to whom.

use std::process::{Command, Stdio};

#[test]
fn broken_pipe_ends_command_quietly() {
    // More than a pipe holds, so that the tool still prints when nobody reads any more.
    let mut tool = Command::new(env!("CARGO_BIN_EXE_shardkeep"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tool.stdout.take());
    let ended = tool.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && stderr.is_empty(), "{}: {stderr}", ended.status);
}
