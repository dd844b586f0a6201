//! Tests of the partition with zones that join, drain, die and return, and with random sequences of all changes.

use std::collections::HashMap;

use shardkeep_types::{CellId, Epoch, Random};

use super::*;
use crate::domain::{
    layout::{LayoutError, SplitLine, fixture::assert_tiles},
    zone::fixture::{owner, zone},
};

const LIMIT: usize = 3;

/// A partition whose database stores each change at once, unless a test delays it.
struct Game {
    partition: Partition,
    now: Instant,
    zones: Vec<ZoneView>,
    /// The cell and the zone of each avatar.
    avatars: Vec<(CellId, InstanceId)>,
    /// The revision that the database has stored and not confirmed.
    unconfirmed: Option<u64>,
    reowned: Vec<Succession>,
    announcements: u32,
}

impl Game {
    /// A new world with two sectors side by side.
    fn new(columns: u16) -> Self {
        let now = Instant::now();
        Self {
            partition: Partition::created(Term(1), Layout::first("meadow", 20, 8, 8, columns), LIMIT, now),
            now,
            zones: Vec::new(),
            avatars: Vec::new(),
            unconfirmed: None,
            reowned: Vec::new(),
            announcements: 0,
        }
    }

    /// Zones `a` and `b` share the two sectors.
    fn settled() -> Self {
        let mut game = Self::new(2);
        game.set_zones([zone("b", 1, Health::Up), zone("a", 1, Health::Up)]);
        game.update();
        game
    }

    fn set_zones<const N: usize>(&mut self, zones: [ZoneView; N]) {
        self.zones = zones.into();
    }

    fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.update();
    }

    fn update(&mut self) {
        self.plan();
        self.confirm();
    }

    fn plan(&mut self) {
        let avatars = self.avatars.iter().map(|(cell, zone)| (*cell, zone));
        let population = Population::count(self.partition.layout(), avatars);
        let effects = self.partition.update(self.now, &self.zones, &population);
        self.apply(effects);
    }

    /// The database confirms the change in flight and those that follow.
    fn confirm(&mut self) {
        while let Some(revision) = self.unconfirmed.take() {
            let effects = self.partition.stored(revision);
            self.apply(effects);
        }
    }

    fn command(&mut self, command: LayoutCommand) -> Result<LayoutCommandDone, LayoutError> {
        let (done, effects) = self.partition.command(&self.zones, command)?;
        self.apply(effects);
        Ok(done)
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Partition => self.announcements += 1,
                Effect::Start(Work::StoreLayout { change, .. }) => {
                    assert_eq!(self.unconfirmed.replace(change.revision + 1), None, "one change at a time");
                }
                Effect::Start(Work::Reown { dead, successor }) => self.reowned.push((dead, successor)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn owners(&self) -> Vec<String> {
        let name = |sector: &Sector| {
            sector.owner().map_or("-".into(), |owner| format!("{}/{}", owner.name, owner.incarnation))
        };
        self.partition.layout().sectors().map(name).collect()
    }

    fn take_reowned(&mut self) -> Vec<Succession> {
        let mut reowned = std::mem::take(&mut self.reowned);
        reowned.sort();
        reowned
    }

    /// Puts avatars of the owner into each sector.
    fn populate(&mut self, count: usize) {
        for sector in self.partition.layout().sectors() {
            let cell = sector.cells().cells().next().unwrap();
            let owner = sector.owner().unwrap();
            self.avatars.extend(std::iter::repeat_n((cell, owner.clone()), count));
        }
    }

    /// The living former owner of each sector has handed its avatars over.
    fn hand_over(&mut self) {
        for (cell, zone) in &mut self.avatars {
            if let Some(owner) = self.partition.layout().sector_at(*cell).and_then(Sector::owner) {
                zone.clone_from(owner);
            }
        }
    }
}

#[test]
fn two_zones_share_sectors_in_name_order() {
    let game = Game::settled();
    assert_eq!(game.owners(), ["a/1", "b/1"]);
    assert!(game.reowned.is_empty());
}

#[test]
fn first_layout_is_stored_without_zones() {
    let mut game = Game::new(2);
    game.update();
    assert_eq!((game.owners(), game.announcements), (vec!["-".to_owned(), "-".to_owned()], 1));
}

#[test]
fn second_zone_gets_its_share_after_rebalance_delay() {
    let mut game = Game::new(2);
    game.set_zones([zone("b", 1, Health::Up)]);
    game.advance(1);
    assert_eq!(game.owners(), ["-", "-"], "waits for the others");
    game.advance(2);
    assert_eq!(game.owners(), ["b/1", "b/1"]);
    game.set_zones([zone("a", 1, Health::Up), zone("b", 1, Health::Up)]);
    game.advance(1);
    game.advance(1);
    assert_eq!(game.owners(), ["b/1", "b/1"]);
    game.advance(1);
    assert_eq!(game.owners(), ["b/1", "a/1"]);
    assert!(game.reowned.is_empty(), "the owner lives and hands its avatars over itself");
    let announcements = game.announcements;
    game.advance(100);
    assert_eq!(game.announcements, announcements);
}

#[test]
fn restarted_zone_gets_its_sectors_at_once() {
    let mut game = Game::settled();
    let epochs: Vec<Epoch> = game.partition.layout().sectors().map(Sector::epoch).collect();
    game.set_zones([zone("a", 2, Health::Up), zone("b", 1, Health::Up)]);
    game.update();
    assert_eq!(game.take_reowned(), [(owner("a", 1), owner("a", 2))]);
    assert_eq!(game.owners(), ["a/2", "b/1"]);
    let now: Vec<Epoch> = game.partition.layout().sectors().map(Sector::epoch).collect();
    assert!(now[0] > epochs[0] && now[1] == epochs[1]);
}

#[test]
fn dead_zone_is_replaced_and_regains_a_share_later() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 1, Health::Gone), zone("b", 1, Health::Up)]);
    game.advance(9);
    assert_eq!(game.owners(), ["a/1", "b/1"]);
    game.advance(2);
    assert_eq!(game.take_reowned(), [(owner("a", 1), owner("b", 1))]);
    assert_eq!(game.owners(), ["b/1", "b/1"]);
    game.set_zones([zone("a", 2, Health::Up), zone("b", 1, Health::Up)]);
    game.advance(9);
    game.advance(2);
    let mut owners = game.owners();
    owners.sort();
    assert_eq!(owners, ["a/2", "b/1"]);
}

#[test]
fn first_zone_up_takes_all_sectors_of_dead_zones() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 1, Health::Gone), zone("b", 1, Health::Gone)]);
    game.advance(1);
    game.advance(60);
    assert_eq!(game.owners(), ["a/1", "b/1"]);
    game.set_zones([zone("a", 1, Health::Gone), zone("b", 2, Health::Up)]);
    game.advance(1);
    assert_eq!(game.take_reowned(), [(owner("a", 1), owner("b", 2)), (owner("b", 1), owner("b", 2))]);
    assert_eq!(game.owners(), ["b/2", "b/2"]);
}

#[test]
fn draining_zone_loses_sectors_without_reown() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 1, Health::Draining), zone("b", 1, Health::Up)]);
    game.update();
    assert_eq!((game.owners(), game.take_reowned()), (vec!["b/1".to_owned(); 2], vec![]));
    game.set_zones([zone("a", 1, Health::Gone), zone("b", 1, Health::Draining)]);
    game.update();
    assert_eq!(game.owners(), ["b/1", "b/1"], "a draining zone serves until another is up");
}

#[test]
fn drained_dead_zone_is_reowned_once() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 1, Health::Draining), zone("b", 1, Health::Up)]);
    game.update();
    game.set_zones([zone("a", 1, Health::Gone), zone("b", 1, Health::Up)]);
    game.update();
    assert_eq!(game.take_reowned(), [(owner("a", 1), owner("b", 1))]);
    game.advance(9);
    assert_eq!(game.take_reowned(), []);
}

#[test]
fn new_term_reowns_earlier_incarnations() {
    let mut game = Game::new(2);
    game.set_zones([zone("a", 7, Health::Up), zone("b", 4, Health::Up)]);
    game.update();
    assert_eq!(game.take_reowned(), [(owner("a", 6), owner("a", 7)), (owner("b", 3), owner("b", 4))]);
}

#[test]
fn new_term_waits_for_owners_that_it_has_not_seen() {
    let layout = Game::settled().partition.stored;
    let mut game = Game::new(2);
    game.partition = Partition::loaded(Term(2), layout, LIMIT, game.now);
    game.set_zones([zone("b", 1, Health::Up)]);
    game.update();
    game.advance(2);
    game.set_zones([zone("a", 1, Health::Up), zone("b", 1, Health::Up)]);
    game.advance(9);
    assert_eq!((game.owners(), game.announcements), (vec!["a/1".to_owned(), "b/1".to_owned()], 0));
}

#[test]
fn starting_zone_gets_no_sectors() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 2, Health::Starting), zone("b", 1, Health::Up)]);
    game.advance(1);
    assert_eq!(game.owners(), ["a/1", "b/1"]);
    game.advance(3);
    assert_eq!(game.take_reowned(), [(owner("a", 1), owner("b", 1))]);
}

#[test]
fn moved_sector_stays_until_it_is_unpinned_or_its_zone_dies() {
    let mut game = Game::settled();
    let to_b = LayoutCommand::Move { sector: SectorId(1), zone: "b".to_owned() };
    game.command(to_b.clone()).unwrap();
    game.confirm();
    game.advance(100);
    assert_eq!(game.owners(), ["b/1", "b/1"]);
    game.command(LayoutCommand::Unpin { sector: SectorId(1) }).unwrap();
    game.confirm();
    game.advance(100);
    assert_eq!(game.owners().iter().filter(|owner| *owner == "a/1").count(), 1);
    game.command(to_b).unwrap();
    game.confirm();
    game.update();
    game.set_zones([zone("a", 1, Health::Up), zone("b", 1, Health::Gone)]);
    game.update();
    game.advance(2);
    game.update();
    assert!(game.partition.layout().sectors().all(|sector| sector.pinned().is_none()));
    assert_eq!(game.owners(), ["a/1", "a/1"]);
}

#[test]
fn move_to_unusable_zone_is_refused() {
    let mut game = Game::settled();
    game.set_zones([zone("a", 1, Health::Up), zone("b", 1, Health::Draining)]);
    let mut to = |sector, zone: &str| {
        let command = LayoutCommand::Move { sector: SectorId(sector), zone: zone.to_owned() };
        game.command(command).unwrap_err().to_string()
    };
    assert_eq!(to(1, "b"), "zone b is draining; choose a zone that is up");
    assert_eq!(to(1, "c"), "there is no zone c; the zones are a, b");
    assert_eq!(to(7, "a"), "there is no sector 7; the nearest number is 2");
}

#[test]
fn migrations_are_limited_until_avatars_have_arrived() {
    let mut game = Game::new(8);
    game.set_zones([zone("a", 1, Health::Up), zone("b", 1, Health::Up)]);
    game.advance(4);
    game.populate(2);
    game.set_zones([zone("a", 1, Health::Draining), zone("b", 1, Health::Up)]);
    game.advance(1);
    let of_a = |game: &Game| game.owners().iter().filter(|owner| *owner == "a/1").count();
    assert_eq!((of_a(&game), game.partition.migrations().len()), (1, LIMIT));
    let moving = game
        .partition
        .layout()
        .sectors()
        .find(|sector| game.partition.migrations().source(sector.id()).is_some());
    let sector = moving.unwrap().id();
    let error = game.command(LayoutCommand::Split { sector, line: None }).unwrap_err();
    assert_eq!(error, LayoutError::Moving { sector, from: "a".to_owned() });
    game.advance(1);
    assert_eq!(of_a(&game), 1);
    game.hand_over();
    game.advance(1);
    assert_eq!((of_a(&game), game.partition.migrations().len()), (0, 1));
}

#[test]
fn commands_follow_the_change_in_flight() {
    let mut game = Game::settled();
    let split = |sector| LayoutCommand::Split { sector: SectorId(sector), line: None };
    let revision = game.partition.layout().revision();
    let first = game.command(split(1)).unwrap();
    let second = game.command(split(2)).unwrap();
    assert_eq!((first.revision, second.revision), (revision + 1, revision + 2));
    let unchanged = game.command(LayoutCommand::Unpin { sector: SectorId(1) }).unwrap();
    assert_eq!(unchanged.revision, revision + 2);
    assert_eq!(game.partition.layout().sectors().count(), 2, "nothing is stored yet");
    game.confirm();
    let layout = game.partition.layout();
    assert_eq!((layout.sectors().count(), layout.revision()), (4, revision + 2));
}

#[test]
fn closing_space_is_removed_when_it_is_empty() {
    let mut game = Game::settled();
    let create = LayoutCommand::CreateSpace { map: "meadow".to_owned(), tick_hz: None, size: (4, 4) };
    assert_eq!(game.command(create).unwrap().made, 2);
    game.confirm();
    game.update();
    assert_eq!(game.owners().len(), 3);
    let inside = CellId { space: SpaceId(2), x: 0, y: 0 };
    game.avatars.push((inside, owner("a", 1)));
    game.command(LayoutCommand::CloseSpace { space: SpaceId(2) }).unwrap();
    game.confirm();
    game.update();
    game.advance(60);
    assert!(game.partition.layout().space(SpaceId(2)).unwrap().is_closing());
    game.avatars.clear();
    game.update();
    assert_eq!(game.partition.layout().space(SpaceId(2)), None);
    assert_eq!(game.owners().len(), 2);
}

/// The owner and the epoch of each cell.
type Cells = HashMap<CellId, (Option<InstanceId>, Epoch)>;

fn cells(layout: &Layout) -> Cells {
    let of = |sector: &Sector| (sector.owner().cloned(), sector.epoch());
    let sectors = layout.sectors();
    sectors.flat_map(|sector| sector.cells().cells().map(move |cell| (cell, of(sector)))).collect()
}

/// Checks what must hold after each step. Returns the cells as announced now.
fn check(game: &Game, before: &Cells) -> Cells {
    let layout = game.partition.layout();
    assert_tiles(layout);
    assert!(game.partition.migrations().len() <= LIMIT);
    let after = cells(layout);
    for (cell, (owner, epoch)) in &after {
        let Some((owner_before, epoch_before)) = before.get(cell) else { continue };
        assert!(epoch >= epoch_before, "the epoch of {cell} falls");
        assert!(owner == owner_before || epoch > epoch_before, "{cell} has two owners in one epoch");
    }
    after
}

/// A number below `end`.
fn below(random: &mut Random, end: u32) -> u32 {
    random.within(0, end - 1)
}

fn below16(random: &mut Random, end: u32) -> u16 {
    u16::try_from(below(random, end)).unwrap()
}

fn random_zone(random: &mut Random, game: &mut Game) {
    let at = below(random, 5) as usize;
    let name = format!("zone-{at}");
    let known = game.zones.iter().position(|zone| zone.id().name == name);
    let incarnation = known.map_or(1, |at| game.zones[at].id().incarnation);
    let is_gone = known.is_none_or(|at| game.zones[at].is(Health::Gone));
    let next = match (is_gone, below(random, 3)) {
        (true, _) => zone(&name, incarnation + 1, Health::Up),
        (false, 0) => zone(&name, incarnation, Health::Gone),
        (false, 1) => zone(&name, incarnation, Health::Draining),
        // A restart between two looks at the registry.
        (false, _) => zone(&name, incarnation + 1, Health::Up),
    };
    match known {
        Some(at) => game.zones[at] = next,
        None => game.zones.push(next),
    }
}

fn random_command(random: &mut Random, game: &mut Game) {
    let sector = |random: &mut Random| SectorId(below(random, 24));
    let command = match below(random, 7) {
        0 | 1 => LayoutCommand::Split { sector: sector(random), line: None },
        2 => LayoutCommand::Split { sector: sector(random), line: Some(SplitLine::Y(below16(random, 9))) },
        3 => LayoutCommand::Merge { first: sector(random), second: sector(random) },
        4 => LayoutCommand::Move { sector: sector(random), zone: format!("zone-{}", below(random, 6)) },
        5 => LayoutCommand::CreateSpace { map: "meadow".to_owned(), tick_hz: Some(30), size: (3, 2) },
        _ => LayoutCommand::CloseSpace { space: SpaceId(below(random, 6)) },
    };
    // Many of them name something that does not exist or is not possible; then nothing may change.
    let before = game.partition.planned.clone();
    if game.command(command).is_err() {
        assert_eq!(game.partition.planned, before);
    }
}

fn random_avatars(random: &mut Random, game: &mut Game) {
    let zones: Vec<InstanceId> = game.zones.iter().map(|zone| zone.id().clone()).collect();
    for _ in 0..below(random, 40) {
        let space = SpaceId(1 + below(random, 3));
        let cell = CellId { space, x: below16(random, 8), y: below16(random, 8) };
        let owner = game.partition.layout().sector_at(cell).and_then(Sector::owner).or(zones.first());
        if let Some(owner) = owner.cloned() {
            game.avatars.push((cell, owner));
        }
    }
    let kept = game.avatars.len().min(200);
    game.avatars.drain(..game.avatars.len() - kept);
}

fn run_random_sequence(seed: u64) {
    let mut random = Random::new(seed);
    let mut game = Game::new(1 + below16(&mut random, 4));
    let mut before = Cells::new();
    for _ in 0..200 {
        match below(&mut random, 8) {
            0 => random_zone(&mut random, &mut game),
            1 | 2 => random_command(&mut random, &mut game),
            3 => random_avatars(&mut random, &mut game),
            4 => game.hand_over(),
            5 => game.confirm(),
            _ => game.now += Duration::from_millis(below(&mut random, 4_000).into()),
        }
        game.plan();
        before = check(&game, &before);
    }
    game.zones.push(zone("last", 1, Health::Up));
    for _ in 0..40 {
        game.hand_over();
        game.advance(10);
        before = check(&game, &before);
    }
    assert_eq!(game.partition.migrations().len(), 0);
    for sector in game.partition.layout().sectors() {
        let owner = sector.owner().expect("an owner");
        let serves = |zone: &&ZoneView| zone.id() == owner && zone.is(Health::Up);
        assert!(game.zones.iter().any(|zone| serves(&zone)), "{sector:?} has no owner that is up");
    }
    let announcements = game.announcements;
    for _ in 0..40 {
        game.advance(2);
    }
    assert_eq!(game.announcements, announcements, "sectors move although nothing changes");
}

#[test]
fn random_sequences_keep_the_invariants() {
    for seed in 1..=40 {
        run_random_sequence(seed);
    }
}
