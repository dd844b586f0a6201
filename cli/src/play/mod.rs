//! `shardkeep play`: a client for a person, in a terminal. It shows the map around the avatar, the chat, the inventory and
//! the trade with a neighbour.

mod game;
mod guest;
mod keys;
mod screen;
mod trade_panel;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shardkeep_client::{
    Config,
    game::{GameEvents, Player},
    login,
};

use self::{game::Game, guest::Guest};
use crate::{
    account,
    data_dir::DataDir,
    lane::LaneArgs,
    operator::{ClusterArgs, Operator},
    program, terminal,
};

#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Account to play with; when absent, a guest account of the local cluster that no other terminal uses
    account: Option<String>,
    /// Character to play, created if the account has none of this name; the account's first when absent
    #[arg(long)]
    character: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Address of the cluster's DNS server; the local cluster's when absent
    #[arg(long)]
    dns: Option<String>,
    /// DNS zone of the cluster
    #[arg(long, default_value = "shardkeep.test")]
    zone: String,
    /// Name of the deployment
    #[arg(long, default_value = "dev")]
    deployment: String,
    /// World to play in
    #[arg(long, default_value_t = 1)]
    world: u32,
    #[command(flatten)]
    lane: LaneArgs,
    /// Folder of the local cluster
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
}

/// An account, and the name of the character that it gets at its first visit.
struct PlayerAccount {
    name: String,
    password: String,
    character: String,
}

pub async fn run(args: PlayArgs) -> Result<()> {
    let dir = DataDir::new(&args.data_dir)?;
    // Held until the end: another terminal takes another guest meanwhile.
    let guest = if args.account.is_none() { Some(Guest::take(&dir)?) } else { None };
    let account = match (&args.account, &guest) {
        (Some(name), _) => PlayerAccount {
            password: terminal::password(&format!("Password for {name}"), args.password_stdin)?
                .expose()
                .clone(),
            character: guest::character_name(name, 1),
            name: name.clone(),
        },
        (None, Some(guest)) => guest_account(&args, guest).await?,
        (None, None) => unreachable!("a guest is taken when no account is named"),
    };
    let (player, game_events) = enter(&args, &dir, account).await?;
    let mut screen = ratatui::try_init().context("this is not a terminal one can draw on")?;
    let result = Game::new(player).run(&mut screen, game_events).await;
    ratatui::restore();
    println!("{}", result?);
    Ok(())
}

/// Gives the guest's account a new password.
async fn guest_account(args: &PlayArgs, guest: &Guest) -> Result<PlayerAccount> {
    if args.dns.is_some() {
        bail!("name an account: guest accounts exist on the local cluster only, and --dns names another one");
    }
    let cluster = ClusterArgs { data_dir: args.data_dir.clone(), registry: None, tls_dir: None };
    let mut accounts = Operator::connect(&cluster).await?.accounts().await?;
    let (name, password) = (guest.account(), account::random_password()?);
    account::ensure(&mut accounts, &name, &password).await?;
    Ok(PlayerAccount { name, password, character: guest.character() })
}

/// From an account to an avatar in the world.
async fn enter(args: &PlayArgs, dir: &DataDir, account: PlayerAccount) -> Result<(Player, GameEvents)> {
    let dns = match &args.dns {
        Some(address) => address.clone(),
        None => {
            let missing = || {
                format!(
                    "no local cluster: `{}` starts one, --dns names another",
                    program::hint("up", dir.path())
                )
            };
            dir.announced("dns-1").with_context(missing)?.client
        }
    };
    let server =
        tokio::net::lookup_host(&dns).await?.next().with_context(|| format!("{dns} has no address"))?;
    let config = Config::with_dns(server).deployment(&args.deployment);
    let config = args.lane.choose(config, args.dns.is_none().then_some(dir))?;
    let mut worlds = login::log_in(&config, &args.zone, &account.name, &account.password).await?;
    let gateway_ticket = worlds.select(args.world).await?;
    let (player, game_events) = Player::attach(&config, gateway_ticket).await?;
    let characters = player.list_characters().await?.characters;
    let wanted = args.character.clone().or_else(|| characters.first().map(|it| it.name.clone()));
    let wanted = wanted.unwrap_or(account.character);
    let id = match characters.iter().find(|it| it.name.eq_ignore_ascii_case(&wanted)) {
        Some(character) => character.id,
        None => player.create_character(&wanted).await?.id,
    };
    println!("entering as {wanted} …");
    player.enter(id).await?;
    Ok((player, game_events))
}
