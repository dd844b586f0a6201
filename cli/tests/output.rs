//! The output of the command line.

use std::process::{Command, Stdio};

#[test]
fn broken_pipe_ends_command_quietly() {
    // The script is larger than the buffer of a pipe, so that the tool still prints after the pipe has closed.
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
