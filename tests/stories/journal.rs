//! Players play on a cluster with two zones. Afterwards `shardkeep replay` verifies the journal of each zone, tells what a
//! player did, and finds a changed byte.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::{Actor, trade};
use shardkeep_testkit::{Cluster, binary};

#[tokio::test]
async fn journal_of_every_zone_replays_to_same_hashes() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    let bob = Actor::enter(&cluster, "bob").await?;
    // Over the border between the two zones, and back.
    ann.walk_to(530, 512).await?;
    ann.walk_to(500, 512).await?;
    trade(&ann, &bob).await?;
    let (name, character) = (ann.name.clone(), ann.character()?);
    drop((ann, bob));
    let journal = cluster.data_dir().join("db/journal");
    // While no daemon runs, so that the journal is complete.
    cluster.restart_after(async { verify(&journal, &name, &character.to_string()) }).await?;
    cluster.stop().await
}

fn verify(journal: &Path, name: &str, character: &str) -> Result<()> {
    for zone in ["zone-1", "zone-2"] {
        let output = replay(&journal.join(zone), &[])?;
        let text = text(&output);
        ensure!(output.status.success() && text.contains("the replay agrees"), "{zone}: {text}");
        ensure!(!text.contains("note:"), "a journal of a drained zone is complete: {text}");
        ensure!(!text.contains("\n0 state hashes"), "nothing was compared: {text}");
    }

    let history = text(&replay(journal, &["--avatar", character])?);
    let entered = format!("{name} entered at ");
    for part in [&entered, "moved to ", "left", "trades 1 item and 0 coins", "is done"] {
        ensure!(history.contains(part), "{part:?} is not in the history: {history}");
    }

    let chunk = first_chunk(&journal.join("zone-1"))?;
    let mut bytes = fs::read(&chunk)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let copy = tempfile::tempdir()?;
    let damaged = copy.path().join(chunk.file_name().context("a chunk has a name")?);
    fs::write(&damaged, bytes)?;
    let output = replay(&damaged, &[])?;
    let text = text(&output);
    ensure!(!output.status.success(), "the damage is not noticed: {text}");
    ensure!(text.contains("damaged") && text.contains(&damaged.display().to_string()), "{text}");
    Ok(())
}

fn replay(folder: &Path, options: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).arg("replay").arg(folder).args(options).output()?)
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The oldest chunk of space 1.
fn first_chunk(zone: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(zone.join("space-1"))?;
    let mut paths: Vec<PathBuf> = files.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    paths.into_iter().next().context("the zone has no journal")
}
