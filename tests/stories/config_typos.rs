//! A mistake in the settings is found before anything starts, and its message says where it is and what was meant.

use std::{net::TcpListener, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use shardkeep_testkit::binary;

#[test]
fn a_typo_is_named_with_its_line_and_the_nearest_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "# The meadow.\n[zone]\nsave_intervall = \"2s\"\n")?;
    let complaint = refused(&["daemon", "zone", "--config", &file, "--check-config"])?;
    for part in ["settings.toml:3:", "`save_intervall`", "did you mean `save_interval`?"] {
        ensure!(complaint.contains(part), "no {part:?} in: {complaint}");
    }
    Ok(())
}

#[test]
fn settings_that_no_daemon_reads_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "[zones]\nsave_interval = \"2s\"\n")?;
    let data = folder.path().join("var").display().to_string();
    let complaint = refused(&["up", "--data-dir", &data, "--port-base", "0", "--config", &file])?;
    ensure!(complaint.contains("settings.toml") && complaint.contains("[zones]"), "{complaint}");
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_moves_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    // The first port that a cluster binds is one above its base.
    let (data, base) = (folder.path().join("var").display().to_string(), (port - 1).to_string());
    let complaint = refused(&["up", "--data-dir", &data, "--port-base", &base])?;
    ensure!(complaint.contains(&port.to_string()) && complaint.contains("--port-base"), "{complaint}");
    Ok(())
}

fn write(folder: &Path, settings: &str) -> Result<String> {
    let file = folder.join("settings.toml");
    std::fs::write(&file, settings)?;
    Ok(file.display().to_string())
}

/// What the tool says on standard error; fails if it does not refuse.
fn refused(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).args(arguments).output().context("the tool does not start")?;
    ensure!(!output.status.success(), "shardkeep {arguments:?} found nothing wrong");
    Ok(String::from_utf8(output.stderr)?)
}
