//! `shardkeep certs`: a development CA, one certificate per daemon, and the one that players see.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shardkeep_cluster::certs::{self, Files};
use shardkeep_types::{DaemonKind, WorldId};

/// Kinds that show the players' certificate.
const PLAYER_FACING: [DaemonKind; 2] = [DaemonKind::Login, DaemonKind::Gateway];

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
    /// User id that the daemons run as: it becomes the owner of their keys, but not of the CA's key
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
    /// Also copy each certificate with its key and the CA's certificate into DIR/<name>, to give a container these alone
    #[arg(long, value_name = "DIR")]
    deliver: Option<PathBuf>,
    /// Host name or address that the certificate for players names beside this machine's; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Revoke every certificate of these names and write revoked.pem; run the command again to issue new ones
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    revoke: Vec<String>,
    /// Daemons as kind or kind:name, for example gateway:gateway-1; every kind when empty
    daemons: Vec<String>,
}

pub fn run(args: &CertsArgs) -> Result<()> {
    if !args.revoke.is_empty() {
        let list = certs::revoke(&args.dir, &args.revoke)?;
        println!("{}", list.display());
        return Ok(());
    }
    certs::make_ca(&args.dir).with_context(|| format!("cannot make a CA in {}", args.dir.display()))?;
    let (daemons, players) = if args.daemons.is_empty() {
        let hosts: Vec<&str> = args.hosts.iter().map(String::as_str).collect();
        let players = certs::issue_players(&args.dir, &hosts)?;
        let all = DaemonKind::DAEMONS.iter().chain([&DaemonKind::Cli]).map(ToString::to_string).collect();
        (all, Some(players))
    } else {
        (args.daemons.clone(), None)
    };
    for daemon in &daemons {
        let (kind, name) = parse(daemon)?;
        let files =
            issue(args, kind, name).with_context(|| format!("cannot make the certificate of {daemon}"))?;
        print_and_own(args, &files)?;
        if let Some(dir) = &args.deliver {
            // Named like the certificate: with --replicas, by kind.
            let folder = dir.join(files.cert.file_stem().context("a certificate without a name")?);
            set_owner(args, &files.copy_to(&folder)?.key)?;
            if let Some(players) = players.as_ref().filter(|_| PLAYER_FACING.contains(&kind)) {
                set_owner(args, &players.copy_to(&folder)?.key)?;
            }
        }
    }
    players.map_or(Ok(()), |players| print_and_own(args, &players))
}

/// A kind and the name of the instance; the kind is the name when the argument holds none.
fn parse(daemon: &str) -> Result<(DaemonKind, &str)> {
    let (kind, name) = daemon.split_once(':').unwrap_or((daemon, daemon));
    let Ok(kind) = kind.parse() else {
        let kinds: Vec<String> = DaemonKind::DAEMONS.iter().map(ToString::to_string).collect();
        bail!(
            "{kind:?} is not a kind of daemon; use kind or kind:name with one of: {}, cli, backend",
            kinds.join(", ")
        );
    };
    Ok((kind, name))
}

fn issue(args: &CertsArgs, kind: DaemonKind, name: &str) -> Result<Files> {
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

fn print_and_own(args: &CertsArgs, files: &Files) -> Result<()> {
    set_owner(args, &files.key)?;
    println!("{}", files.cert.display());
    Ok(())
}

fn set_owner(args: &CertsArgs, key: &Path) -> Result<()> {
    args.owner.map_or(Ok(()), |uid| {
        chown(key, Some(uid), None)
            .with_context(|| format!("cannot give {} to user {uid} (only root can)", key.display()))
    })
}
