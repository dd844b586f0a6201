//! The leaves of the trees. Each turns a behaviour into an intent, or returns `None` when it has nothing to do.

use crate::{
    decision::{DecisionContext, Intent},
    grid::Point,
    tree::Behaviour,
};

pub(crate) fn act(behaviour: Behaviour, context: &mut DecisionContext<'_>) -> Option<Intent> {
    match behaviour {
        Behaviour::Rest => rest(context),
        Behaviour::Wander => wander(context),
        Behaviour::Chase => chase(context),
        Behaviour::Strike => strike(context),
        Behaviour::Return => return_home(context),
        Behaviour::Flee => flee(context),
    }
}

fn rest(context: &mut DecisionContext<'_>) -> Option<Intent> {
    (context.memory.resting > 0).then(|| {
        context.memory.forget_path();
        Intent::Idle
    })
}

/// Walks a path to its end, rests, then picks another random point around its home.
fn wander(context: &mut DecisionContext<'_>) -> Option<Intent> {
    if let Some(next) = context.memory.next_waypoint(context.perception.at, context.grid) {
        return Some(Intent::Move(next, context.profile.walk_speed));
    }
    if std::mem::take(&mut context.memory.wandering) {
        let (shortest, longest) = context.profile.rest;
        context.memory.resting = context.memory.random.between(shortest, longest);
        return Some(Intent::Idle);
    }
    context.memory.wandering = true;
    let (home, wander_distance) = (context.perception.home, context.profile.wander_distance);
    let mut around =
        |at: i32| at.saturating_add(context.memory.random.between(-wander_distance, wander_distance));
    let goal = Point::new(around(home.x), around(home.y));
    if !context.grid.is_open_at(goal) {
        return None;
    }
    let next = context.memory.waypoint_toward(goal, context.perception.at, context.grid, context.finder)?;
    Some(Intent::Move(next, context.profile.walk_speed))
}

fn chase(context: &mut DecisionContext<'_>) -> Option<Intent> {
    let combat_target = context.combat_target()?;
    run_to(context, combat_target.at)
}

fn strike(context: &mut DecisionContext<'_>) -> Option<Intent> {
    context.memory.forget_path();
    context.combat_target().map(|combat_target| Intent::Attack(combat_target.entity))
}

fn return_home(context: &mut DecisionContext<'_>) -> Option<Intent> {
    run_to(context, context.perception.home)
}

/// Runs straight if the line is open, else along a path.
fn run_to(context: &mut DecisionContext<'_>, goal: Point) -> Option<Intent> {
    let at = context.perception.at;
    let next = if context.grid.line_is_open(at, goal) {
        context.memory.go_straight(goal);
        goal
    } else {
        context.memory.waypoint_toward(goal, at, context.grid, context.finder)?
    };
    Some(Intent::Move(next, context.profile.run_speed))
}

/// How far a fleeing creature looks ahead.
const FLIGHT_MM: i64 = 6_000;
/// Directions that it tries, as (cosine, sine) in thousandths relative to the direction away from the threat: 0°, ±40°,
/// ±80°, ±120°.
const TURNS: [(i64, i64); 7] =
    [(1000, 0), (766, 643), (766, -643), (174, 985), (174, -985), (-500, 866), (-500, -866)];

/// Runs along the first open direction away from the threat. `None` when no direction is open.
fn flee(context: &mut DecisionContext<'_>) -> Option<Intent> {
    let (at, threat) = (context.perception.at, context.threat()?.at);
    let away = (i64::from(at.x) - i64::from(threat.x), i64::from(at.y) - i64::from(threat.y));
    // At the same point, every direction leads away.
    let away = if away == (0, 0) { (1, 0) } else { away };
    let length = (away.0.saturating_pow(2).saturating_add(away.1.saturating_pow(2))).isqrt().max(1);
    let unit = (away.0 * 1000 / length, away.1 * 1000 / length);
    let goals = TURNS.into_iter().filter_map(|(cosine, sine)| {
        let turned = (unit.0 * cosine - unit.1 * sine, unit.0 * sine + unit.1 * cosine);
        let ahead = |from: i32, part: i64| i32::try_from(i64::from(from) + part * FLIGHT_MM / 1_000_000).ok();
        Some(Point::new(ahead(at.x, turned.0)?, ahead(at.y, turned.1)?))
    });
    let goal = { goals }.find(|goal| context.grid.line_is_open(at, *goal))?;
    context.memory.go_straight(goal);
    Some(Intent::Move(goal, context.profile.run_speed))
}
