//! Player events of trades, pick-ups, drops, kills and deaths, with names, items, coins and places. An operator can
//! answer a report of a scam with `shardkeep logs query` alone.

use shardkeep_daemon::event;
use shardkeep_sim::{
    HardChange, Item, Outcome, Possessions, Stack, TradeContribution,
    template::{CreatureTemplate, item},
};
use shardkeep_types::{CharacterId, EntityId, ItemId, Position, SpawnId};

use super::Space;

/// Count, kind and id of a stack, as in `2 apple #17`.
fn describe(stack: Stack, id: ItemId) -> String {
    match item::name(stack.template) {
        Some(name) => format!("{} {name} #{id}", stack.count),
        None => format!("{} of kind {} #{id}", stack.count, stack.template),
    }
}

/// Describes items that a character holds after the commit.
fn describe_items(ids: &[ItemId], holder: Option<&Possessions>) -> String {
    let find = |id: &ItemId| holder.and_then(|own| own.items.iter().find(|item| item.id == *id));
    let describe = |id: &ItemId| match find(id) {
        Some(&Item { template, count, .. }) => describe(Stack { template, count }, *id),
        None => format!("#{id}"),
    };
    ids.iter().map(describe).collect::<Vec<_>>().join(", ")
}

impl Space {
    /// Records a change that the database has committed. An answer to a repeat counts too: the first answer was lost.
    pub(super) fn record_commit(&self, change: &HardChange, outcome: &Outcome) {
        let Outcome::Done { applied, minted, possessions } = outcome else { return };
        let holder = |player: CharacterId| {
            possessions.iter().find(|(character, _)| *character == player).map(|(_, own)| own)
        };
        match change {
            HardChange::PickUp { player, item, from, .. } => {
                let items = describe_items(&[*item], holder(*player));
                let (at, ground) = (self.place(*player), from.to_string());
                let (account, name) = (self.account(*player), self.character_name(*player));
                let (character, world) = (player.0, self.world.0);
                let (space, x_mm, y_mm) = (at.space.0, at.x_mm, at.y_mm);
                event!("pick_up", account, character, world, name, items, ground, space, x_mm, y_mm);
            }
            HardChange::Drop { player, item: Item { id, template, count }, at, .. } => {
                let items = describe(Stack { template: *template, count: *count }, *id);
                let (account, name) = (self.account(*player), self.character_name(*player));
                let (character, world) = (player.0, self.world.0);
                let (space, x_mm, y_mm) = (at.space.0, at.x_mm, at.y_mm);
                event!("drop", account, character, world, name, items, space, x_mm, y_mm);
            }
            HardChange::Trade { sides: [a, b] } => {
                let items =
                    [describe_items(&a.items, holder(b.player)), describe_items(&b.items, holder(a.player))];
                self.record_trade(a, b, &items[0], &items[1]);
                self.record_trade(b, a, &items[1], &items[0]);
            }
            HardChange::Loot { spawn, at, stacks, reward: Some(reward), .. }
                if *applied || !minted.is_empty() =>
            {
                let items = stacks.iter().zip(minted).map(|(stack, id)| describe(*stack, *id));
                let (space, x_mm, y_mm) = (at.space.0, at.x_mm, at.y_mm);
                event!(
                    "kill",
                    character = reward.player.0,
                    world = self.world.0,
                    name = self.character_name(reward.player),
                    creature = self.creature_name(*spawn),
                    loot = items.collect::<Vec<_>>().join(", "),
                    coins = reward.coins,
                    experience = reward.experience,
                    space,
                    x_mm,
                    y_mm,
                );
            }
            HardChange::Loot { .. } | HardChange::Recall { .. } => {}
        }
    }

    pub(super) fn record_death(&self, character: CharacterId, killer: EntityId, at: Position) {
        let killer = match (killer.as_spawn(), killer.as_character()) {
            (Some(spawn), _) => self.creature_name(spawn).to_owned(),
            (None, Some(character)) => self.character_name(character),
            (None, None) => String::new(),
        };
        let (space, x_mm, y_mm) = (at.space.0, at.x_mm, at.y_mm);
        let (account, name) = (self.account(character), self.character_name(character));
        let (character, world) = (character.0, self.world.0);
        event!("death", account, character, world, name, killer, space, x_mm, y_mm);
    }

    /// One event for each participant, so that a query by either character finds the trade.
    fn record_trade(&self, own: &TradeContribution, partner: &TradeContribution, gave: &str, got: &str) {
        let at = self.place(own.player);
        event!(
            "trade",
            account = self.account(own.player),
            character = own.player.0,
            world = self.world.0,
            name = self.character_name(own.player),
            partner = partner.player.0,
            partner_name = self.character_name(partner.player),
            gave,
            gave_coins = own.coins,
            got,
            got_coins = partner.coins,
            space = at.space.0,
            x_mm = at.x_mm,
            y_mm = at.y_mm,
        );
    }

    /// Where the avatar stands; the origin when it has left.
    fn place(&self, character: CharacterId) -> Position {
        self.sim.avatar(character).map(|avatar| avatar.own.position).unwrap_or_default()
    }

    fn account(&self, character: CharacterId) -> u64 {
        self.players.get(character).map_or(0, |player| player.account.0)
    }

    fn character_name(&self, character: CharacterId) -> String {
        let own = self.players.get(character).map(|player| player.name.to_string());
        own.or_else(|| Some(self.sim.avatar_name(character)?.to_string())).unwrap_or_default()
    }

    fn creature_name(&self, spawn: SpawnId) -> &'static str {
        let point = self.sim.map().spawns.iter().find(|point| point.number == spawn.number);
        point
            .and_then(|point| CreatureTemplate::get(point.template))
            .map_or("creature", |template| template.name)
    }
}
