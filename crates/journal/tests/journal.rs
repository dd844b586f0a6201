//! Whole journals on disk: record, replay, damage.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use proptest::prelude::*;
use shardkeep_journal::{
    Batch, Break, Chunk, Fault, History, Journal, Observer, Origin, Policy, Record, Recorder, Replay, Report,
    Sink, Span, list,
};
use shardkeep_sim::{
    Act, ActionKey, EnteringAvatar, Event, Goal, Input, Intent, Item, Map, Outcome, Possessions, Requester,
    Sim, rules::TICK_MS,
};
use shardkeep_types::{CellRect, CharacterId, EntityId, Epoch, ItemId, Random, SpaceId, SpawnId};

const SPACE: SpaceId = SpaceId(1);
const ANN: CharacterId = CharacterId(1);
const START_MS: u64 = 1_000_000;
const ALL: u64 = 64 << 20;
const ONE_CHUNK: Policy = Policy { chunk_bytes: ALL, chunk_ms: u64::MAX };

/// Observes nothing.
struct Nothing;

impl Observer for Nothing {
    fn input(&mut self, _: &Sim, _: &Input) {}
    fn events(&mut self, _: &Sim, _: &[Event]) {}
    fn tick(&mut self, _: &Sim) {}
}

/// The hash after every tick.
#[derive(Default)]
struct Hashes(Vec<u64>);

impl Observer for Hashes {
    fn input(&mut self, _: &Sim, _: &Input) {}
    fn events(&mut self, _: &Sim, _: &[Event]) {}
    fn tick(&mut self, sim: &Sim) {
        self.0.push(sim.state_hash());
    }
}

/// A simulation with its recorder, as in a zone.
struct World {
    sim: Sim,
    recorder: Recorder,
    now: u64,
    random: Random,
    sequence: u32,
}

impl World {
    fn new(policy: Policy) -> Self {
        let map = Arc::new(Map::named("ring").expect("the map exists"));
        let origin = Origin { release: "test".into(), zone: "zone-1".into(), incarnation: 7, seed: 5 };
        let sim = Sim::new(SPACE, map, 5, START_MS);
        let recorder = Recorder::new(origin, policy, &sim);
        let mut world = Self { sim, recorder, now: START_MS, random: Random::new(3), sequence: 0 };
        let cells = CellRect { space: SPACE, x0: 0, y0: 0, x1: 8, y1: 8 };
        world.apply(Input::Sectors(vec![cells]));
        world.apply(Input::Ground { cells, items: vec![] });
        world.apply(Input::Populate { cells, generations: BTreeMap::new() });
        for id in 1..=4 {
            world.apply(enter(CharacterId(id), world.sim.map()));
        }
        world
    }

    fn apply(&mut self, input: Input) {
        self.recorder.input(&input);
        for event in self.sim.apply(input) {
            self.event(event);
        }
    }

    /// Answers commits as a database does.
    fn event(&mut self, event: Event) {
        let Event::Commit { number, change } = event else { return };
        let outcome = if number % 3 == 0 {
            Outcome::Refused
        } else {
            let minted = vec![ItemId(number * 2), ItemId(number * 2 + 1)];
            let possessions = change.characters().map(|who| (who, Possessions::default())).collect();
            Outcome::Done { applied: true, minted, possessions }
        };
        self.apply(Input::Committed { number, outcome });
    }

    /// Players run, creatures chase, and both fight.
    fn tick(&mut self) -> Option<Batch> {
        self.sequence += 1;
        for id in 1..=4 {
            let character = CharacterId(id);
            let velocity = (self.random.between(-1_000, 1_000), self.random.between(-1_000, 1_000));
            self.apply(Input::Move { character, sequence: self.sequence, velocity, facing: id as u8 });
            // Two creatures hunt each avatar.
            let number = 2 * (id as u32 - 1) + self.sequence % 2;
            let creature = EntityId::creature(SpawnId { space: SPACE, number });
            let requester = Requester { character, request: u64::from(self.sequence) };
            let act = if self.random.within(0, 9) == 0 {
                let action = ActionKey { id: u64::from(self.sequence), digest: [1; 16] };
                Act::Drop { action, item: ItemId(100 + id) }
            } else {
                Act::Attack { target: creature }
            };
            self.apply(Input::Act { requester, act });
            let at = self.sim.position(EntityId::avatar(character)).expect("the avatar is here");
            let hunter = self.sim.position(creature);
            let is_near =
                hunter.is_some_and(|hunter| hunter.point().distance_squared(at.point()) < 1_000_000);
            let goal = if is_near {
                Goal::Attack { target: EntityId::avatar(character) }
            } else {
                Goal::Move { x_mm: at.x_mm, y_mm: at.y_mm, speed: 5_000 }
            };
            self.apply(Input::Intents(vec![Intent { creature, goal }]));
        }
        self.now += TICK_MS + u64::from(self.sequence % 3);
        self.recorder.tick(self.now);
        for event in self.sim.tick(self.now) {
            self.event(event);
        }
        self.recorder.end_tick(&self.sim)
    }

    /// Records ticks to a sink, and tells the recorder of losses.
    fn run(&mut self, ticks: u64, sink: &Sink) {
        for _ in 0..ticks {
            if let Some(batch) = self.tick() {
                let records = batch.records;
                if !sink.write(batch) {
                    self.recorder.lost(records, self.now);
                }
            }
        }
    }
}

fn enter(character: CharacterId, map: &Map) -> Input {
    let item = Item { id: ItemId(100 + character.0), template: 4, count: 1 };
    let possessions = Possessions { items: vec![item], coins: 10, ..Possessions::default() };
    Input::Enter(Box::new(EnteringAvatar {
        character,
        name: Arc::from(format!("player-{character}")),
        epoch: Epoch(1),
        position: map.start.in_space(SPACE, shardkeep_types::Layer(0)),
        velocity: (0, 0),
        facing: 0,
        health: 100,
        last_input: 0,
        cooldown_ms: 0,
        possessions,
    }))
}

/// Records ticks to a folder and closes the journal.
fn record(folder: &Path, policy: Policy, ticks: u64) -> World {
    let journal = Journal::start(folder, ALL).expect("the folder is writable");
    let mut world = World::new(policy);
    let sink = journal.sink();
    world.run(ticks, &sink);
    let rest = world.recorder.finish(&world.sim).expect("the last hash is not written yet");
    assert!(sink.write(rest));
    journal.close();
    world
}

fn replay(folder: &Path, span: Span) -> Report {
    replay_with(folder, span, &mut Nothing)
}

fn replay_with(folder: &Path, span: Span, observer: &mut dyn Observer) -> Report {
    Replay::new(span, observer, &mut |_| {}).run(list(folder).expect("the folder is readable"))
}

fn only_file(folder: &Path) -> PathBuf {
    let files = list(folder).expect("the folder is readable");
    assert_eq!(files.len(), 1);
    files[0].path.clone()
}

#[test]
fn recorded_space_replays_to_same_hashes_over_several_chunks() {
    let own = tempfile::tempdir().unwrap();
    // `make test-long` replays this journal with other builds.
    let folder = std::env::var_os("SHARDKEEP_JOURNAL_OUT").map_or(own.path().to_owned(), PathBuf::from);
    let world = record(&folder, Policy { chunk_bytes: 40_000, chunk_ms: u64::MAX }, 800);
    let report = replay(&folder, Span::default());
    assert!(report.breaks.is_empty(), "{:?}", report.breaks);
    assert!(report.chunks > 2 && report.ticks == 800 && report.inputs > 8_000, "{report:?}");
    assert!(report.hashes >= 40, "{report:?}");
    assert!(world.sim.counts().deaths > 0, "creatures and avatars die in this fight");
    assert_eq!(report.last_ms, Some(world.now));
}

#[test]
fn span_replays_from_the_chunk_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = record(folder.path(), Policy { chunk_bytes: ALL, chunk_ms: 2_000 }, 200);
    let (from, to) = (world.now - 3_000, world.now - 1_000);
    let mut hashes = Hashes::default();
    let span = Span { from: Some(from), to: Some(to), ..Span::default() };
    let report = replay_with(folder.path(), span, &mut hashes);
    assert!(report.breaks.is_empty(), "{:?}", report.breaks);
    assert!(report.first_ms.unwrap() <= from && report.first_ms.unwrap() > from - 2_200, "{report:?}");
    assert!(report.last_ms.unwrap() <= to && report.last_ms.unwrap() > to - 60, "{report:?}");
    assert!((38..=40).contains(&hashes.0.len()), "{}", hashes.0.len());
    let other = Span { space: Some(SpaceId(9)), ..Span::default() };
    assert_eq!(replay(folder.path(), other).chunks, 0);
}

#[test]
fn changed_input_is_found_as_difference_at_its_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(ONE_CHUNK);
    let journal = Journal::start(folder.path(), ALL).unwrap();
    let sink = journal.sink();
    world.run(60, &sink);
    // The journal misses an input that the simulation got.
    let changed_at = world.now;
    world.sim.apply(Input::Leave { character: ANN });
    world.sim.apply(enter(ANN, &Map::named("ring").unwrap()));
    world.run(60, &sink);
    assert!(world.recorder.finish(&world.sim).is_some_and(|rest| sink.write(rest)));
    journal.close();
    let report = replay(folder.path(), Span::default());
    let [Break::Difference { at_ms, number, recorded, replayed, .. }] = &report.breaks[..] else {
        panic!("{:?}", report.breaks)
    };
    assert!((changed_at..=changed_at + 1_100).contains(at_ms), "{at_ms}, changed at {changed_at}");
    assert!(*number > 0 && recorded != replayed && report.is_failure());
}

#[test]
fn every_damaged_byte_is_reported_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 20);
    let bytes = fs::read(only_file(folder.path())).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        let found = Chunk::parse(damaged).and_then(|mut chunk| {
            while chunk.next_item()?.is_some() {}
            Ok(chunk.is_torn())
        });
        let error = found.expect_err("the damage is noticed");
        assert!(error.offset <= at, "byte {at}: {error}");
    }
}

#[test]
fn damaged_chunk_is_reported_and_later_chunks_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), Policy { chunk_bytes: ALL, chunk_ms: 2_000 }, 200);
    let files = list(folder.path()).unwrap();
    let path = &files[1].path;
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let report = replay(folder.path(), Span::default());
    let [Break::Damaged { file, error }] = &report.breaks[..] else { panic!("{:?}", report.breaks) };
    assert_eq!(file, path);
    assert!(matches!(error.fault, Fault::Block { .. } | Fault::BlockHead) && error.offset <= at, "{error}");
    assert_eq!(report.chunks, files.len() as u64);
    assert!(report.ticks > 120 && report.ticks < 200, "{report:?}");
}

#[test]
fn torn_tail_ends_the_chunk_without_failure() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 60);
    let path = only_file(folder.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let report = replay(folder.path(), Span::default());
    assert!(matches!(report.breaks[..], [Break::Torn { .. }]), "{:?}", report.breaks);
    assert!(!report.is_failure() && report.ticks > 50 && report.hashes > 0);
}

#[test]
fn journal_of_other_version_and_other_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 20);
    let path = only_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 99;
    fs::write(&path, &bytes).unwrap();
    let report = replay(folder.path(), Span::default());
    let text = report.breaks[0].to_string();
    assert!(text.contains("format 99") && text.contains(path.to_str().unwrap()), "{text}");
    fs::write(&path, b"something else").unwrap();
    let text = replay(folder.path(), Span::default()).breaks[0].to_string();
    assert!(text.contains("not a journal"), "{text}");
}

#[test]
fn full_journal_leaves_gap_and_continues_with_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    // The one open chunk fills the journal, and no older chunk can be removed.
    let journal = Journal::start(folder.path(), 60_000).unwrap();
    let mut world = World::new(ONE_CHUNK);
    let sink = journal.sink();
    for _ in 0..400 {
        if let Some(batch) = world.tick() {
            let records = batch.records;
            if !sink.write(batch) {
                world.recorder.lost(records, world.now);
            }
        }
        // The writer's answer reaches the recorder with a later batch. Waits for the queue, not for a time.
        journal.flush();
    }
    drop(sink);
    journal.close();
    let files = list(folder.path()).unwrap();
    let total: u64 = files.iter().map(|file| fs::metadata(&file.path).unwrap().len()).sum();
    assert!(total <= 60_000, "{total} bytes");
    let report = replay(folder.path(), Span::default());
    assert!(!report.is_failure(), "{:?}", report.breaks);
    assert!(report.breaks.iter().any(|found| matches!(found, Break::Gap { records, .. } if *records > 100)));
    assert!(report.hashes > 0);
}

#[test]
fn oldest_chunks_are_removed_beyond_the_limit_also_those_of_earlier_runs() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), Policy { chunk_bytes: 20_000, chunk_ms: u64::MAX }, 200);
    let before = list(folder.path()).unwrap();
    let journal = Journal::start(folder.path(), 100_000).unwrap();
    let mut world = World::new(Policy { chunk_bytes: 20_000, chunk_ms: u64::MAX });
    // A later start of the zone.
    let origin = Origin { release: "test".into(), zone: "zone-1".into(), incarnation: 8, seed: 5 };
    world.recorder = Recorder::new(origin, Policy { chunk_bytes: 20_000, chunk_ms: u64::MAX }, &world.sim);
    let sink = journal.sink();
    world.run(400, &sink);
    journal.close();
    let after = list(folder.path()).unwrap();
    let total: u64 = after.iter().map(|file| fs::metadata(&file.path).unwrap().len()).sum();
    assert!(total <= 100_000 && total > 50_000, "{total} bytes");
    assert!(!after.contains(&before[0]), "the oldest is gone");
    assert!(!replay(folder.path(), Span::default()).is_failure());
}

#[test]
fn folder_that_cannot_be_written_loses_batches_and_never_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::start(folder.path(), ALL).unwrap();
    // A file where the space's folder should be.
    fs::write(folder.path().join("space-1"), b"").unwrap();
    let mut world = World::new(ONE_CHUNK);
    let sink = journal.sink();
    let first = loop {
        if let Some(batch) = world.tick() {
            break batch;
        }
    };
    assert!(sink.write(first), "it is queued");
    journal.flush();
    let next = loop {
        if let Some(batch) = world.tick() {
            break batch;
        }
    };
    let records = next.records;
    assert!(!sink.write(next), "its chunk was not written");
    world.recorder.lost(records, world.now);
    fs::remove_file(folder.path().join("space-1")).unwrap();
    world.run(100, &sink);
    journal.close();
    let report = replay(folder.path(), Span::default());
    assert!(matches!(report.breaks[..], [Break::Gap { .. }]), "{:?}", report.breaks);
    assert!(report.ticks > 20 && !report.is_failure());
}

#[test]
fn history_tells_what_happened_to_one_avatar() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 800);
    let mut lines = Vec::new();
    let mut history = History::new(ANN, |at, text: String| lines.push((at, text)));
    replay_with(folder.path(), Span::default(), &mut history);
    assert!(lines.is_sorted_by_key(|(at, _)| *at));
    let text: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        text[0],
        "player-1 entered at (128.00, 128.00) m with health 100 and 1 stack, 10 coins, 0 experience"
    );
    for expected in
        ["moved to (", "was hit for ", "asks to drop item 101", "drops item 101 (1 sword) at ", "has "]
    {
        assert!(text.iter().any(|line| line.starts_with(expected)), "{expected}: {text:#?}");
    }
}

const CHILD: &str = "SHARDKEEP_JOURNAL_CHILD";

/// The next test runs this one in another process.
#[test]
#[ignore = "prints the hashes of a journal for another test"]
fn print_hashes_of_journal() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let mut hashes = Hashes::default();
    let report = replay_with(Path::new(&folder), Span::default(), &mut hashes);
    assert!(!report.is_failure(), "{:?}", report.breaks);
    let stack = 0u8;
    println!("hashes {:x?}", hashes.0);
    println!("address {:p}", &raw const stack);
}

#[test]
fn replays_in_processes_with_other_addresses_have_same_hash_after_every_tick() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 200);
    let run = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "print_hashes_of_journal", "--ignored", "--nocapture"])
            .env(CHILD, folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let line =
            |start: &str| text.lines().find(|line| line.contains(start)).unwrap_or_default().to_owned();
        (line("hashes"), line("address"))
    };
    let (one, other) = (run(), run());
    assert!(one.0.len() > 200 * 10, "{}", one.0);
    assert_eq!(one.0, other.0);
    assert_ne!(one.1, other.1, "this machine randomises no addresses, so this test shows nothing");
}

fn small_chunk() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), ONE_CHUNK, 5);
    fs::read(only_file(folder.path())).unwrap()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        shardkeep_journal::fuzz(&bytes);
    }

    /// Records before the cut are read, and only those.
    #[test]
    fn cut_chunk_gives_prefix_of_records(cut in 0.0f64..1.0) {
        let whole = small_chunk();
        let read = |bytes: Vec<u8>| {
            let mut records = Vec::new();
            if let Ok(mut chunk) = Chunk::parse(bytes) {
                while let Ok(Some(item)) = chunk.next_item() {
                    records.push(item.record);
                }
            }
            records
        };
        let all: Vec<Record> = read(whole.clone());
        let some = read(whole[..(cut * whole.len() as f64) as usize].to_vec());
        prop_assert!(all.len() > 5 && all.starts_with(&some));
    }
}
