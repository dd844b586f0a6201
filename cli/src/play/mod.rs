//! `shardkeep play`: a client for a person, in a terminal. The map around the avatar, a chat line, what one carries,
//! and trading with whoever stands near.

mod keys;
mod screen;
mod trade_panel;

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use shardkeep_client::{
    ClientError, Config,
    game::{GameEvent, GameEvents, Player, View},
    login,
    wire::{
        movement::EntityKind,
        payload::{Channel, TradeState},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    keys::{Command, Mode},
    trade_panel::TradePanel,
};
use crate::{
    account,
    data_dir::DataDir,
    lane::LaneArgs,
    operator::{ClusterArgs, Operator},
    terminal,
};

/// Terminals tell no key releases: an avatar walks on for so long after an arrow key.
const STEP: Duration = Duration::from_millis(350);
const SPEED_MM_S: i16 = 6_000;
const FRAME: Duration = Duration::from_millis(50);
const KEPT_LINES: usize = 200;

#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Account to play with; a guest account of the local cluster when absent
    account: Option<String>,
    /// Character to play, made if the account has none of this name; the account's first when absent
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

pub async fn run(args: PlayArgs) -> Result<()> {
    let (player, game_events) = enter(&args).await?;
    let mut screen = ratatui::try_init().context("this is not a terminal one can draw on")?;
    let result = Game::new(player).run(&mut screen, game_events).await;
    ratatui::restore();
    println!("{}", result?);
    Ok(())
}

/// From arguments to an avatar in the world.
async fn enter(args: &PlayArgs) -> Result<(Player, GameEvents)> {
    let dir = DataDir::new(&args.data_dir)?;
    let dns = match &args.dns {
        Some(address) => address.clone(),
        None => {
            dir.announced("dns-1")
                .context("no local cluster: `shardkeep up` starts one, --dns names another")?
                .client
        }
    };
    let server =
        tokio::net::lookup_host(&dns).await?.next().with_context(|| format!("{dns} has no address"))?;
    let config = Config::with_dns(server).deployment(&args.deployment);
    let config = args.lane.choose(config, args.dns.is_none().then_some(&dir))?;
    let (name, password) = match &args.account {
        Some(name) => (
            name.clone(),
            terminal::password(&format!("Password for {name}"), args.password_stdin)?.expose().clone(),
        ),
        None => guest(args).await?,
    };
    let mut worlds = login::log_in(&config, &args.zone, &name, &password).await?;
    let gateway_ticket = worlds.select(args.world).await?;
    let (player, game_events) = Player::attach(&config, gateway_ticket).await?;
    let characters = player.list_characters().await?.characters;
    let wanted = args.character.clone().or_else(|| characters.first().map(|it| it.name.clone()));
    let wanted = wanted.unwrap_or_else(|| character_name(&name));
    let id = match characters.iter().find(|it| it.name.eq_ignore_ascii_case(&wanted)) {
        Some(character) => character.id,
        None => player.create_character(&wanted).await?.id,
    };
    println!("entering as {wanted} …");
    player.enter(id).await?;
    Ok((player, game_events))
}

/// An account of the local cluster, with a new password at each visit.
async fn guest(args: &PlayArgs) -> Result<(String, String)> {
    if args.dns.is_some() {
        bail!("which account? A guest account can only be made on the local cluster");
    }
    let cluster = ClusterArgs { data_dir: args.data_dir.clone(), registry: None, tls_dir: None };
    let mut accounts = Operator::connect(&cluster).await?.accounts().await?;
    let user: String = std::env::var("USER").unwrap_or_default().to_lowercase();
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let name = format!("guest-{}", if user.is_empty() { "one" } else { &user });
    let password = account::random_password()?;
    account::ensure(&mut accounts, &name, &password).await?;
    Ok((name, password))
}

/// A character name from an account name: 3 to 16 letters.
fn character_name(account: &str) -> String {
    let mut name: String = account.chars().filter(char::is_ascii_alphabetic).take(16).collect();
    while name.len() < 3 {
        name.push('a');
    }
    name[..1].make_ascii_uppercase();
    name
}

/// What the screen shows beside the player's view of the world.
struct Game {
    player: Arc<Player>,
    mode: Mode,
    /// What is being typed.
    line: String,
    log: VecDeque<String>,
    trade_panel: TradePanel,
    /// When the present step ends.
    stop_at: Option<Instant>,
    /// What background requests report.
    reports: mpsc::Receiver<String>,
    report_sender: mpsc::Sender<String>,
}

impl Game {
    fn new(player: Player) -> Self {
        // A person reads these: what does not fit is not worth waiting for.
        let (report_sender, reports) = mpsc::channel(64);
        let mut log = VecDeque::new();
        log.push_back(
            "arrows walk · Enter talks · a attack · g pick up · t trade · 1-9 drop · q quit".into(),
        );
        Self {
            player: Arc::new(player),
            mode: Mode::Walking,
            line: String::new(),
            log,
            trade_panel: TradePanel::default(),
            stop_at: None,
            reports,
            report_sender,
        }
    }

    /// Returns what to tell the person at the end.
    async fn run(
        mut self,
        screen: &mut ratatui::DefaultTerminal,
        mut game_events: GameEvents,
    ) -> Result<String> {
        let mut keys = EventStream::new();
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = frames.tick() => {
                    self.stop_if_due().await;
                    screen.draw(|frame| self.player.with_view(|view| screen::draw(frame, view, &self)))?;
                }
                key = keys.next() => {
                    let Some(event) = key.transpose()? else { return Ok("the terminal closed".into()) };
                    if let Event::Key(key) = event
                        && key.kind != KeyEventKind::Release
                        && let Some(command) = keys::command(self.mode, key)
                        && self.execute(command).await
                    {
                        self.player.logout().await;
                        return Ok("goodbye".into());
                    }
                }
                game_event = game_events.next() => match game_event {
                    Some(GameEvent::Ended(end)) => return Ok(format!("the session is over: {end}")),
                    Some(game_event) => self.take(game_event),
                    None => return Ok("the session is over".into()),
                },
                Some(reports) = self.reports.recv() => self.log_line(reports),
            }
        }
    }

    fn log_line(&mut self, line: String) {
        if self.log.len() == KEPT_LINES {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    async fn stop_if_due(&mut self) {
        if self.stop_at.is_some_and(|at| at <= Instant::now()) {
            self.stop_at = None;
            let _ = self.player.stop().await;
        }
    }

    /// Returns true when the person wants to leave.
    async fn execute(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return true,
            Command::Walk(x, y) => {
                self.stop_at = Some(Instant::now() + STEP);
                let _ = self.player.walk(x * SPEED_MM_S, y * SPEED_MM_S).await;
            }
            Command::StartTyping => self.mode = Mode::Typing,
            Command::Type(c) => self.line.push(c),
            Command::Erase => {
                self.line.pop();
            }
            Command::StopTyping => self.stop_typing(),
            Command::Say => {
                let line = std::mem::take(&mut self.line);
                self.stop_typing();
                self.speak(line);
            }
            Command::Attack => self.attack(),
            Command::PickUp => self.pick_up(),
            Command::Item(index) => self.item(index),
            Command::Trade => self.invite(),
            Command::Accept => self.accept(),
            Command::Coins(more) => self.offer(|trade_panel| trade_panel.add_coins(more)),
            Command::Cancel => self.cancel(),
        }
        false
    }

    fn stop_typing(&mut self) {
        self.line.clear();
        self.mode = Mode::Walking;
    }

    /// Runs a request beside the screen; what comes of it is told in the log.
    fn spawn_request(&self, work: impl Future<Output = Result<String, ClientError>> + Send + 'static) {
        let report_sender = self.report_sender.clone();
        tokio::spawn(async move {
            let message = work.await.unwrap_or_else(|error| format!("! {error}"));
            if !message.is_empty() {
                let _ = report_sender.try_send(message);
            }
        });
    }

    /// `text` to those around, `/z text` to the zone, `/all text` to the world, `/w name text` to one.
    fn speak(&mut self, line: String) {
        let player = self.player.clone();
        let (channel, to, text) = match line.split_once(' ') {
            Some(("/z", text)) => (Channel::Zone, String::new(), text.to_owned()),
            Some(("/all", text)) => (Channel::World, String::new(), text.to_owned()),
            Some(("/w", rest)) => match rest.split_once(' ') {
                Some((to, text)) => (Channel::Whisper, to.to_owned(), text.to_owned()),
                None => return self.log_line("! /w name text".into()),
            },
            _ if line.trim().is_empty() => return,
            _ => (Channel::Say, String::new(), line),
        };
        self.spawn_request(async move { player.speak(channel, &text, &to).await.map(|()| String::new()) });
    }

    fn attack(&mut self) {
        let target = self.nearest(EntityKind::Creature);
        let Some((id, name)) = target else { return self.log_line("! no creature in sight".into()) };
        let player = self.player.clone();
        self.spawn_request(async move {
            let result = player.attack(id).await?;
            let end = if result.killed { ", it is dead" } else { "" };
            Ok(format!("you hit the {name} for {}{end}", result.damage))
        });
    }

    fn pick_up(&mut self) {
        let Some((id, name)) = self.nearest(EntityKind::GroundItem) else {
            return self.log_line("! nothing lies in sight".into());
        };
        let player = self.player.clone();
        self.spawn_request(async move { player.pick_up(id).await.map(|_| format!("you took the {name}")) });
    }

    /// In a trade: offer or take back; otherwise: drop.
    fn item(&mut self, index: usize) {
        let item =
            self.player.with_view(|view| view.inventory.as_ref().and_then(|it| it.items.get(index).copied()));
        let Some(item) = item else { return };
        if self.trade_panel.is_open() {
            return self.offer(|trade_panel| trade_panel.toggle(item.id));
        }
        let (player, name) = (self.player.clone(), screen::item_name(item.template));
        self.spawn_request(async move {
            player.drop_item(item.id).await.map(|_| format!("you dropped the {name}"))
        });
    }

    fn invite(&mut self) {
        let Some((id, name)) = self.nearest(EntityKind::Avatar) else {
            return self.log_line("! nobody is in sight".into());
        };
        let player = self.player.clone();
        self.spawn_request(
            async move { player.invite(id).await.map(|_| format!("you ask {name} to trade")) },
        );
    }

    fn offer(&mut self, change: impl FnOnce(&mut TradePanel)) {
        if !self.trade_panel.is_open() {
            return;
        }
        change(&mut self.trade_panel);
        let (player, offer) = (self.player.clone(), self.trade_panel.offer());
        self.spawn_request(async move {
            player.offer(offer.trade, offer.items, offer.coins).await.map(|_| String::new())
        });
    }

    /// Accepts an invitation, or confirms what both offer.
    fn accept(&mut self) {
        let (player, trade_panel) = (self.player.clone(), &self.trade_panel);
        let (trade, revision) = (trade_panel.trade(), trade_panel.revision());
        if trade_panel.is_open() {
            self.spawn_request(async move { player.confirm(trade, revision).await.map(|_| String::new()) });
        } else if trade_panel.is_invited() {
            self.spawn_request(async move { player.answer(trade, true).await.map(|_| String::new()) });
        }
    }

    fn cancel(&mut self) {
        if !self.trade_panel.is_open() && !self.trade_panel.is_invited() {
            return;
        }
        let (player, trade) = (self.player.clone(), self.trade_panel.trade());
        self.spawn_request(async move { player.cancel(trade).await.map(|_| String::new()) });
    }

    fn nearest(&self, kind: EntityKind) -> Option<(shardkeep_types::EntityId, String)> {
        self.player.with_view(|view: &View| {
            let entity = view.nearest(|it| it.kind == kind)?;
            let name = match kind {
                EntityKind::GroundItem => screen::item_name(entity.template.into()).to_owned(),
                _ => entity.name.clone(),
            };
            Some((entity.id, name))
        })
    }

    fn take(&mut self, game_event: GameEvent) {
        match game_event {
            GameEvent::ChatMessage(heard) => {
                let channel = match heard.channel() {
                    Channel::Whisper => " whispers",
                    Channel::World => " to all",
                    Channel::Zone => " to the zone",
                    _ => "",
                };
                self.log_line(format!("{}{channel}: {}", heard.from, heard.text));
            }
            GameEvent::Announcement(text) => self.log_line(format!("*** {text}")),
            GameEvent::Vitals(vitals) if vitals.died => {
                self.log_line("you died, and wake where you started".into());
            }
            GameEvent::Trade(trade) => {
                match trade.state() {
                    TradeState::TradeInvited => {
                        self.log_line(format!("{} asks to trade: y accepts, n refuses", trade.partner_name));
                    }
                    TradeState::TradeOpen if !self.trade_panel.is_open() => {
                        self.log_line(
                            "trading: 1-9 offer items, + and - coins, y confirms, n cancels".into(),
                        );
                    }
                    TradeState::TradeDone => self.log_line("the trade is done".into()),
                    TradeState::TradeCancelled => self.log_line("the trade is off".into()),
                    _ => {}
                }
                self.trade_panel.take(trade);
            }
            GameEvent::Placed(placed) => self.log_line(format!("you are in {}", placed.zone)),
            GameEvent::Lost => self.log_line("… connection lost, resuming".into()),
            GameEvent::Resumed { .. } => self.log_line("… and back".into()),
            _ => {}
        }
    }
}
