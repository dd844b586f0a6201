//! `shardkeep certs`: a development CA, one certificate per daemon, and the one that players see.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shardkeep_cluster::certs::{self, Files};
use shardkeep_types::{DaemonKind, WorldId};

#[derive(Debug, Args)]
pub struct CertsArgs {
    /// Folder for ca.pem, ca.key, <name>.pem and <name>.key; an existing CA is used again
    #[arg(long, default_value = "var/tls")]
    dir: PathBuf,
    /// World of the certificates; default: 1 for world, zone, ai and chat, all worlds for backends of your own
    #[arg(long)]
    world: Option<u32>,
    /// Make certificates that all replicas of a kind share: they prove kind and world, not which replica
    #[arg(long)]
    replicas: bool,
    /// User id of the daemons, which becomes the owner of their keys; the key of the CA keeps its owner
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
    /// Host name or address that the certificate for players names beside this machine's; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Daemons as kind or kind:name, for example gateway:gateway-1; every kind when empty
    daemons: Vec<String>,
}

pub fn run(args: &CertsArgs) -> Result<()> {
    certs::make_ca(&args.dir).with_context(|| format!("cannot make a CA in {}", args.dir.display()))?;
    let all: Vec<String>;
    let mut players = None;
    let daemons = if args.daemons.is_empty() {
        all = DaemonKind::DAEMONS.iter().chain([&DaemonKind::Cli]).map(ToString::to_string).collect();
        players = Some(certs::issue_players(&args.dir, &hosts(&args.hosts))?);
        &all
    } else {
        &args.daemons
    };
    for daemon in daemons {
        let files =
            issue(args, daemon).with_context(|| format!("cannot make the certificate of {daemon}"))?;
        if let Some(uid) = args.owner {
            set_owner(&files.key, uid)?;
        }
        println!("{}", files.cert.display());
    }
    if let Some(files) = players {
        if let Some(uid) = args.owner {
            set_owner(&files.key, uid)?;
        }
        println!("{}", files.cert.display());
    }
    Ok(())
}

fn hosts(hosts: &[String]) -> Vec<&str> {
    hosts.iter().map(String::as_str).collect()
}

fn issue(args: &CertsArgs, daemon: &str) -> Result<Files> {
    let (kind, name) = daemon.split_once(':').unwrap_or((daemon, daemon));
    let Ok(kind) = kind.parse::<DaemonKind>() else {
        bail!("expected kind or kind:name, and {kind:?} is no kind of daemon");
    };
    let world = WorldId(match kind {
        DaemonKind::World | DaemonKind::Zone | DaemonKind::Ai | DaemonKind::Chat => args.world.unwrap_or(1),
        DaemonKind::Backend => args.world.unwrap_or(0),
        _ => 0,
    });
    // Each operator has a certificate with a name, so that the audit can tell operators apart.
    if args.replicas && kind != DaemonKind::Cli {
        return certs::issue_shared(&args.dir, kind, world);
    }
    certs::issue(&args.dir, kind, name, world)
}

fn set_owner(key: &Path, uid: u32) -> Result<()> {
    chown(key, Some(uid), None)
        .with_context(|| format!("cannot give {} to user {uid} (only root can)", key.display()))
}
