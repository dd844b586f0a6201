//! `shardkeep patch keygen`, and reading its key files.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shardkeep_patch::SigningKey;
use shardkeep_types::Secret;

const HEADER: &str = "shardkeep patch key 1";

#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// New file for the secret key; the public key goes into `<file>.pub`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub fn run(args: &KeygenArgs) -> Result<()> {
    let seed = Secret::new(shardkeep_daemon::random_bytes::<32>()?);
    let public = SigningKey::from_seed(seed.expose())?.public();
    let shown = args.key.display();
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&args.key)
        .with_context(|| format!("cannot create {shown}"))?;
    let text: Secret<String> = Secret::new(seed.expose().iter().map(|byte| format!("{byte:02x}")).collect());
    writeln!(file, "{HEADER}\n{}", text.expose())?;
    file.sync_all()?;
    let mut public_file = args.key.clone().into_os_string();
    public_file.push(".pub");
    fs::write(&public_file, format!("{public}\n"))?;
    println!("{public}");
    eprintln!(
        "the secret key is in {shown}: keep it where no server can read it, and a copy of it elsewhere"
    );
    Ok(())
}

pub fn read(path: &Path) -> Result<SigningKey> {
    let shown = path.display();
    let text = Secret::new(fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?);
    let mut lines = text.expose().lines();
    if lines.next() != Some(HEADER) {
        bail!("{shown} is no secret key of `shardkeep patch keygen`");
    }
    // A seed has the form of a public key: 64 hexadecimal digits.
    let seed: shardkeep_patch::PublicKey =
        lines.next().unwrap_or_default().parse().with_context(|| format!("{shown} is damaged"))?;
    Ok(SigningKey::from_seed(seed.as_bytes())?)
}
