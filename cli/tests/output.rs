//! What the tool prints, and to whom.

use std::process::{Command, Stdio};

#[test]
fn a_reader_that_has_had_enough_ends_a_command_quietly() {
    // More than a pipe holds, so that the tool still prints when nobody reads any more.
    let mut tool = Command::new(env!("CARGO_BIN_EXE_shardkeep"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tool.stdout.take());
    let ended = tool.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && complaint.is_empty(), "{}: {complaint}", ended.status);
}
