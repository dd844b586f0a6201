//! The leaves of the trees: each turns its behaviour into an intent, or declines.

use crate::{
    Point,
    creature::{Intent, Mind},
    tree::Behaviour,
};

pub(crate) fn act(behaviour: Behaviour, mind: &mut Mind<'_>) -> Option<Intent> {
    match behaviour {
        Behaviour::Rest => rest(mind),
        Behaviour::Wander => wander(mind),
        Behaviour::Chase => chase(mind),
        Behaviour::Strike => strike(mind),
        Behaviour::Return => go_home(mind),
        Behaviour::Flee => flee(mind),
    }
}

fn rest(mind: &mut Mind<'_>) -> Option<Intent> {
    (mind.memory.resting > 0).then(|| {
        mind.memory.forget_path();
        Intent::Idle
    })
}

/// Walks the present path to its end, rests, and picks another place around home.
fn wander(mind: &mut Mind<'_>) -> Option<Intent> {
    if let Some(next) = mind.memory.onward(mind.sense.at, mind.grid) {
        return Some(Intent::Move(next, mind.temper.walk_speed));
    }
    if std::mem::take(&mut mind.memory.strolling) {
        let (shortest, longest) = mind.temper.rest;
        mind.memory.resting = mind.memory.random.between(shortest, longest);
        return Some(Intent::Idle);
    }
    mind.memory.strolling = true;
    let (home, stroll) = (mind.sense.home, mind.temper.stroll);
    let mut around = |at: i32| at.saturating_add(mind.memory.random.between(-stroll, stroll));
    let goal = Point::new(around(home.x), around(home.y));
    if !mind.grid.is_open_at(goal) {
        return None;
    }
    let next = mind.memory.toward(goal, mind.sense.at, mind.grid, mind.finder)?;
    Some(Intent::Move(next, mind.temper.walk_speed))
}

fn chase(mind: &mut Mind<'_>) -> Option<Intent> {
    let quarry = mind.quarry()?;
    run_to(mind, quarry.at)
}

fn strike(mind: &mut Mind<'_>) -> Option<Intent> {
    mind.memory.forget_path();
    mind.quarry().map(|quarry| Intent::Attack(quarry.entity))
}

fn go_home(mind: &mut Mind<'_>) -> Option<Intent> {
    run_to(mind, mind.sense.home)
}

/// Straight when the way is free, else by a path.
fn run_to(mind: &mut Mind<'_>, goal: Point) -> Option<Intent> {
    let at = mind.sense.at;
    let next = if mind.grid.line_is_open(at, goal) {
        mind.memory.go_straight(goal);
        goal
    } else {
        mind.memory.toward(goal, at, mind.grid, mind.finder)?
    };
    Some(Intent::Move(next, mind.temper.run_speed))
}

/// How far ahead a fleeing creature looks.
const FLIGHT_MM: i64 = 6_000;
/// Directions it tries, as (cosine, sine) in thousandths against straight away: 0°, ±40°, ±80°, ±120°.
const TURNS: [(i64, i64); 7] =
    [(1000, 0), (766, 643), (766, -643), (174, 985), (174, -985), (-500, 866), (-500, -866)];

/// Away from the threat, along the first direction that is free; cornered, it declines.
fn flee(mind: &mut Mind<'_>) -> Option<Intent> {
    let (at, threat) = (mind.sense.at, mind.threat()?.at);
    let away = (i64::from(at.x) - i64::from(threat.x), i64::from(at.y) - i64::from(threat.y));
    // Standing on the same spot, any direction will do.
    let away = if away == (0, 0) { (1, 0) } else { away };
    let length = (away.0.saturating_pow(2).saturating_add(away.1.saturating_pow(2))).isqrt().max(1);
    let unit = (away.0 * 1000 / length, away.1 * 1000 / length);
    let goals = TURNS.into_iter().filter_map(|(cosine, sine)| {
        let turned = (unit.0 * cosine - unit.1 * sine, unit.0 * sine + unit.1 * cosine);
        let ahead = |from: i32, part: i64| i32::try_from(i64::from(from) + part * FLIGHT_MM / 1_000_000).ok();
        Some(Point::new(ahead(at.x, turned.0)?, ahead(at.y, turned.1)?))
    });
    let goal = { goals }.find(|goal| mind.grid.line_is_open(at, *goal))?;
    mind.memory.go_straight(goal);
    Some(Intent::Move(goal, mind.temper.run_speed))
}
