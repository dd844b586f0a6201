//! A mistake in the settings is reported before any daemon starts, with its line and the nearest valid key.

use std::{net::TcpListener, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use shardkeep_testkit::binary;

#[test]
fn config_typo_error_names_line_and_nearest_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "# The meadow.\n[zone]\nsave_intervall = \"2s\"\n")?;
    let error = refused(&["daemon", "zone", "--config", &file, "--check-config"])?;
    for part in ["settings.toml:3:", "`save_intervall`", "did you mean `save_interval`?"] {
        ensure!(error.contains(part), "no {part:?} in: {error}");
    }
    Ok(())
}

#[test]
fn unknown_config_section_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "[zones]\nsave_interval = \"2s\"\n")?;
    let data = folder.path().join("var").display().to_string();
    let error = refused(&["up", "--data-dir", &data, "--port-base", "0", "--config", &file])?;
    ensure!(error.contains("settings.toml") && error.contains("[zones]"), "{error}");
    Ok(())
}

#[test]
fn port_in_use_error_names_port_and_flag() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // The first port that a cluster binds is one above its base.
    let (data, base) = (folder.path().join("var").display().to_string(), (port - 1).to_string());
    let error = refused(&["up", "--data-dir", &data, "--port-base", &base])?;
    ensure!(error.contains(&port.to_string()) && error.contains("--port-base"), "{error}");
    Ok(())
}

fn write(folder: &Path, settings: &str) -> Result<String> {
    let file = folder.join("settings.toml");
    std::fs::write(&file, settings)?;
    Ok(file.display().to_string())
}

/// Standard error of a command that must fail.
fn refused(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).args(arguments).output().context("the tool does not start")?;
    ensure!(!output.status.success(), "shardkeep {arguments:?} found nothing wrong");
    Ok(String::from_utf8(output.stderr)?)
}
