use super::*;

const CALM: Setup = Setup {
    seed: 1,
    delay_us: 2_000,
    loss_percent: 0,
    failures: false,
    kills_only: false,
    moves: false,
    without_creatures: false,
    bots: 6,
    unfenced: false,
    early_acknowledgement: false,
};

fn run(setup: Setup) -> Twin {
    let mut twin = Twin::new(setup);
    twin.run_until(20_000);
    twin.quiet();
    twin.run_until(45_000);
    twin.check_end();
    twin
}

#[test]
fn hard_action_is_answered_without_waiting_for_a_tick() {
    let mut twin = run(CALM);
    assert_eq!(twin.faults, Vec::<String>::new());
    assert!(twin.acknowledged > 50, "{} actions", twin.acknowledged);
    twin.latencies.sort_unstable();
    let median_us = twin.latencies[twin.latencies.len() / 2];
    // Four messages of at most 2 ms each: to the zone, to the database, and back.
    assert!(median_us < 10_000, "{median_us} µs");
}

#[test]
fn avatar_moves_on_during_handover() {
    let mut transfers = 0;
    for seed in 0..10 {
        let twin = run(Setup { seed, ..CALM });
        assert_eq!(twin.faults, Vec::<String>::new());
        transfers += twin.transfers;
        // The clocks of the two zones may be almost a tick apart, and a message takes up to 2 ms.
        assert!(twin.longest_stop_us <= 104_000, "seed {seed}: {} µs", twin.longest_stop_us);
    }
    assert!(transfers > 20, "{transfers} hand-overs");
}

#[test]
fn creatures_keep_their_wounds_when_sectors_move() {
    let mut hurt = 0;
    for seed in 0..10 {
        let twin = run(Setup { seed, moves: true, loss_percent: 10, ..CALM });
        assert_eq!(twin.faults, Vec::<String>::new(), "seed {seed}");
        hurt += twin.hurt_after_move;
    }
    assert!(hurt > 1_000, "{hurt} sightings of wounded creatures");
}

#[test]
fn creatures_of_killed_zone_return_as_in_the_last_snapshot() {
    let mut restored = 0;
    for seed in 0..20 {
        let twin = run(Setup { seed, failures: true, kills_only: true, ..CALM });
        assert_eq!(twin.faults, Vec::<String>::new(), "seed {seed}");
        restored += twin.restored;
    }
    assert!(restored > 0, "no creature lost a wound of the last second");
}

#[test]
fn spawns_without_their_creatures_are_found() {
    assert_found(Setup { moves: true, without_creatures: true, ..CALM });
}

#[test]
fn same_seed_gives_same_run() {
    let summary = |twin: &Twin| (twin.acknowledged, twin.transfers, twin.latencies.clone());
    let setup = Setup { seed: 5, loss_percent: 10, failures: true, delay_us: 40_000, ..CALM };
    assert_eq!(summary(&run(setup)), summary(&run(setup)));
}

#[test]
fn every_seed_ends_with_one_owner_of_each_avatar() {
    let seeds = std::env::var("SHARDKEEP_TWIN_SEEDS").unwrap_or_else(|_| "0..60".into());
    let (first, last) = seeds.split_once("..").expect("a range of seeds, as 0..40");
    let seeds = first.parse::<u64>().expect("a number")..last.parse().expect("a number");
    let (mut transfers, mut acknowledged, mut failed) = (0, 0, Vec::new());
    for seed in seeds {
        let moves = seed % 2 == 0;
        let setup = Setup { seed, loss_percent: 10, failures: true, moves, delay_us: 40_000, ..CALM };
        let twin = run(setup);
        transfers += twin.transfers;
        acknowledged += twin.acknowledged;
        if !twin.faults.is_empty() {
            failed.push(format!("seed {seed}: {}", twin.faults.join("; ")));
        }
    }
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
    assert!(transfers > 0 && acknowledged > 0);
    println!("{transfers} hand-overs, {acknowledged} acknowledged actions");
}

/// A check that finds nothing is worth nothing: each planted fault must be found.
fn assert_found(planted: Setup) {
    let found = (0..20).find(|&seed| !run(Setup { seed, ..planted }).faults.is_empty());
    assert!(found.is_some(), "no seed found the planted fault");
}

#[test]
fn database_without_fence_is_found() {
    assert_found(Setup { unfenced: true, failures: true, loss_percent: 10, delay_us: 40_000, ..CALM });
}

#[test]
fn acknowledgement_before_commit_is_found() {
    assert_found(Setup { early_acknowledgement: true, delay_us: 40_000, ..CALM });
}
