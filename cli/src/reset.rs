//! `shardkeep reset`: deletes all data of a cluster.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::data_dir::DataDir;

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Folder of the cluster
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &ResetArgs) -> Result<()> {
    let dir = DataDir::new(&args.data_dir)?;
    if !dir.run().exists() {
        println!("{} holds no cluster", dir.path().display());
        return Ok(());
    }
    let _lock = dir.take()?;
    if !args.yes && !confirmed(&dir)? {
        println!("nothing was deleted");
        return Ok(());
    }
    for folder in [dir.db(), dir.log(), dir.tls(), dir.run()] {
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot delete {}", folder.display()))?;
        }
    }
    println!("deleted the data in {}", dir.path().display());
    Ok(())
}

fn confirmed(dir: &DataDir) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("this deletes all accounts, characters and items in {}: say --yes", dir.path().display());
    }
    print!("Delete all accounts, characters, items and logs in {}? Type yes: ", dir.path().display());
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
