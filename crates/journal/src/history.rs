//! The history of one avatar as text, from a replay.

use std::collections::BTreeMap;

use shardkeep_sim::{
    Act, Event, HardChange, Input, Item, Possessions, Refusal, Reply, Sim, TradeState, template,
};
use shardkeep_types::{CharacterId, EntityId, Position};

use crate::replay::Observer;

/// How often the position of a moving avatar is told.
const MOVED_MS: u64 = 1_000;

/// Passes each line, with the time in milliseconds, to a function.
#[derive(Debug)]
pub struct History<F> {
    character: CharacterId,
    line: F,
    /// Where the avatar was at the last line about its position.
    told: Option<(u64, Position)>,
    health: Option<u32>,
    /// The targets of attacks without a reply, by request.
    attacks: BTreeMap<u64, EntityId>,
}

impl<F: FnMut(u64, String)> History<F> {
    pub fn new(character: CharacterId, line: F) -> Self {
        Self { character, line, told: None, health: None, attacks: BTreeMap::new() }
    }

    fn tell(&mut self, sim: &Sim, text: String) {
        (self.line)(sim.now(), text);
    }

    fn act(&mut self, sim: &Sim, request: u64, act: &Act) {
        let text = match act {
            Act::Attack { target } => {
                self.attacks.insert(request, *target);
                return;
            }
            Act::PickUp { entity, .. } => format!("asks to pick up {}", entity_name(sim, *entity)),
            Act::Drop { item, .. } => format!("asks to drop item {item}"),
            Act::Invite { entity } => format!("invites {} to a trade", entity_name(sim, *entity)),
            Act::Answer { trade, accept: true } => format!("accepts trade {trade}"),
            Act::Answer { trade, accept: false } => format!("declines trade {trade}"),
            Act::Offer { trade, items, coins: amount } => {
                format!("offers {} and {} in trade {trade}", count(items.len(), "item"), coins(*amount))
            }
            Act::Confirm { trade, revision, .. } => format!("confirms revision {revision} of trade {trade}"),
            Act::Cancel { trade } => format!("cancels trade {trade}"),
        };
        self.tell(sim, text);
    }

    fn reply(&mut self, sim: &Sim, request: u64, reply: &Result<Reply, Refusal>) {
        let target = self.attacks.remove(&request).map(|target| entity_name(sim, target));
        let text = match (reply, target) {
            (Ok(Reply::Attack { damage, killed }), target) => {
                let target = target.unwrap_or_else(|| "its target".to_owned());
                let end = if *killed { " and killed it" } else { "" };
                format!("hit {target} for {damage}{end}")
            }
            (Err(refusal), Some(target)) => format!("could not attack {target}: {refusal}"),
            (Err(refusal), None) => format!("was refused: {refusal}"),
            (Ok(Reply::Committed { action }), _) => format!("action {action} is committed"),
            (Ok(Reply::Invited { trade }), _) => format!("trade {trade} begins"),
            // The event about the trade tells more.
            (Ok(Reply::Trade(_)), _) => return,
        };
        self.tell(sim, text);
    }

    fn vitals(&mut self, sim: &Sim, health: u32, max_health: u32) {
        let text = match self.health.replace(health) {
            Some(before) if before > health => {
                format!("was hit for {}: health {health} of {max_health}", before - health)
            }
            _ => format!("health {health} of {max_health}"),
        };
        self.tell(sim, text);
    }

    fn commit(&mut self, sim: &Sim, change: &HardChange) {
        let text = match change {
            HardChange::PickUp { item, .. } => format!("picks up item {item}"),
            HardChange::Drop { item, at, .. } => format!("drops {} at {}", item_name(item), metres(*at)),
            HardChange::Trade { sides } => {
                let side = |side: &shardkeep_sim::TradeContribution| {
                    let items = count(side.items.len(), "item");
                    format!("{items} and {} of character {}", coins(side.coins), side.player)
                };
                format!("trades {} for {}", side(&sides[0]), side(&sides[1]))
            }
            HardChange::Loot { reward: Some(reward), .. } => {
                format!("earns {} experience and {}", reward.experience, coins(reward.coins))
            }
            HardChange::Loot { reward: None, .. } => return,
            HardChange::Recall { action, .. } => format!("asks for the result of action {}", action.id),
        };
        self.tell(sim, text);
    }
}

impl<F: FnMut(u64, String)> Observer for History<F> {
    fn input(&mut self, sim: &Sim, input: &Input) {
        let me = self.character;
        let text = match input {
            Input::Enter(entering) if entering.character == me => {
                let at = sim.position(EntityId::avatar(me)).unwrap_or(entering.position);
                self.told = Some((sim.now(), at));
                self.health = Some(entering.health);
                let (name, has) = (&entering.name, possessions(&entering.possessions));
                format!("{name} entered at {} with health {} and {has}", metres(at), entering.health)
            }
            Input::Leave { character } if *character == me => {
                (self.told, self.health) = (None, None);
                self.attacks.clear();
                "left".to_owned()
            }
            Input::Suspend { character } if *character == me => {
                "begins to leave; its requests wait".to_owned()
            }
            Input::Freeze { character } if *character == me => "is frozen".to_owned(),
            Input::Thaw { character } if *character == me => "is free again".to_owned(),
            Input::Stop { character } if *character == me => "lost its connection and stops".to_owned(),
            Input::Act { requester, act } if requester.character == me => {
                return self.act(sim, requester.request, act);
            }
            _ => return,
        };
        self.tell(sim, text);
    }

    fn events(&mut self, sim: &Sim, events: &[Event]) {
        let me = self.character;
        for event in events {
            match event {
                Event::Reply { requester, reply } if requester.character == me => {
                    self.reply(sim, requester.request, reply);
                }
                Event::Vitals { character, health, max_health, .. } if *character == me => {
                    self.vitals(sim, *health, *max_health);
                }
                Event::Died { character, killer, position } if *character == me => {
                    let text =
                        format!("died at {}, killed by {}", metres(*position), entity_name(sim, *killer));
                    self.tell(sim, text);
                }
                Event::Placed { character, position } if *character == me => {
                    self.told = Some((sim.now(), *position));
                    self.tell(sim, format!("was placed at {}", metres(*position)));
                }
                Event::Trade { character, view } if *character == me => {
                    let state = trade_state(view.state);
                    self.tell(sim, format!("trade {} with {} is {state}", view.trade, view.partner_name));
                }
                Event::Commit { change, .. } if change.characters().any(|character| character == me) => {
                    self.commit(sim, change);
                }
                Event::Possessions { character } if *character == me => {
                    if let Some(has) = sim.possessions(me) {
                        self.tell(sim, format!("has {}", possessions(has)));
                    }
                }
                _ => {}
            }
        }
    }

    fn tick(&mut self, sim: &Sim) {
        let Some(avatar) = sim.avatar(self.character) else { return };
        let (now, at) = (sim.now(), avatar.own.position);
        let is_news = match self.told {
            None => true,
            Some((told, before)) => at != before && now >= told + MOVED_MS,
        };
        if is_news {
            let verb = if self.told.is_some() { "moved to" } else { "is at" };
            self.told = Some((now, at));
            self.health.get_or_insert(avatar.own.health);
            self.tell(sim, format!("{verb} {}", metres(at)));
        }
    }
}

fn metres(at: Position) -> String {
    let part = |mm: i32| format!("{}.{:02}", mm / 1_000, mm.unsigned_abs() % 1_000 / 10);
    format!("({}, {}) m", part(at.x_mm), part(at.y_mm))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn coins(amount: i64) -> String {
    format!("{amount} coin{}", if amount == 1 { "" } else { "s" })
}

fn possessions(has: &Possessions) -> String {
    let stacks = count(has.items.len(), "stack");
    format!("{stacks}, {}, {} experience", coins(has.coins), has.experience)
}

fn item_name(item: &Item) -> String {
    let kind = template::item::name(item.template).unwrap_or("thing");
    format!("item {} ({} {kind})", item.id, item.count)
}

fn entity_name(sim: &Sim, entity: EntityId) -> String {
    if let Some(character) = entity.as_character() {
        return sim
            .avatar_name(character)
            .map_or_else(|| format!("character {character}"), |name| name.to_string());
    }
    match entity.as_item() {
        Some(item) => format!("item {item}"),
        None => format!("creature {entity}"),
    }
}

fn trade_state(state: TradeState) -> &'static str {
    match state {
        TradeState::Invited => "proposed",
        TradeState::Open => "open",
        TradeState::Committing => "being committed",
        TradeState::Done => "done",
        TradeState::Cancelled => "cancelled",
    }
}
