//! The game as a person plays it: keys become requests, and events become lines and panels.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Result;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use shardkeep_client::{
    ClientError,
    game::{GameEvent, GameEvents, Player, View},
    wire::{
        movement::EntityKind,
        payload::{Channel, TradeState},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    keys::{self, Command, Mode},
    screen,
    trade_panel::TradePanel,
};

/// A terminal reports no key releases: an avatar walks for this time after an arrow key.
const STEP: Duration = Duration::from_millis(350);
const SPEED_MM_S: i16 = 6_000;
const FRAME: Duration = Duration::from_millis(50);
const KEPT_LINES: usize = 200;

/// The state of the screen that is not in the player's view of the world.
pub struct Game {
    player: Arc<Player>,
    mode: Mode,
    /// The line that the person types.
    line: String,
    log: VecDeque<String>,
    trade_panel: TradePanel,
    /// End of the current step.
    stop_at: Option<Instant>,
    /// Lines from background requests.
    reports: mpsc::Receiver<String>,
    report_sender: mpsc::Sender<String>,
}

impl Game {
    pub fn new(player: Player) -> Self {
        // A person reads these lines: a full queue drops further ones.
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

    /// Returns the line to print at the end.
    pub async fn run(
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
                    screen.draw(|frame| self.player.with_view(|view| screen::draw(frame, view, &self.panels())))?;
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

    fn panels(&self) -> screen::Panels<'_> {
        let typed = (self.mode == Mode::Typing).then_some(self.line.as_str());
        screen::Panels { typed, log: &self.log, trade: self.trade_panel.shown() }
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

    /// Runs a request in the background; its result becomes a line of the log.
    fn spawn_request(&self, work: impl Future<Output = Result<String, ClientError>> + Send + 'static) {
        let report_sender = self.report_sender.clone();
        tokio::spawn(async move {
            let message = work.await.unwrap_or_else(|error| format!("! {error}"));
            if !message.is_empty() {
                let _ = report_sender.try_send(message);
            }
        });
    }

    /// Sends `text` to nearby players, `/z text` to the zone, `/all text` to the world, `/w name text` to one player.
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

    /// In a trade: offers the item or takes it back. Otherwise: drops it.
    fn item(&mut self, index: usize) {
        let item =
            self.player.with_view(|view| view.inventory.as_ref().and_then(|it| it.items.get(index).copied()));
        let Some(item) = item else { return };
        if self.trade_panel.is_open() {
            return self.offer(|trade_panel| trade_panel.toggle(item));
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
