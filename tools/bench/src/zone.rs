//! The number of avatars that one core simulates at 20 Hz. The measure covers the whole tick: inputs, movement, interest,
//! combat, and the encoding of changed cells. It uses the thread's CPU time, which does not depend on other load.

use std::{hint::black_box, time::Duration};

use anyhow::{Result, ensure};
use shardkeep_sim::{
    Event,
    load::{Load, Shape},
};

use crate::{
    host,
    table::{Benchmark, Outcome, Row},
};

const LIMIT: Duration = Duration::from_millis(50);
const WARM_UP: usize = 10;
/// Five seconds of the world.
const TICKS: usize = 100;
/// Of 100 ticks, one may be late at the 99th percentile.
const MAX_LATE_TICKS: usize = 1;
const BISECTIONS: u32 = 3;
const MAX_AVATARS: u64 = 1 << 20;

pub const ZONE: Benchmark = Benchmark {
    name: "zone",
    label: "avatars moving at 20 Hz on one core, everything watched, p99 tick <= 50 ms",
    target: ">= 10,000 spread, >= 2,000 in one crowd, <= 2 us per avatar",
    run,
};

/// The cost of a number of avatars, if it is within the limit.
#[derive(Debug, Clone, Copy)]
struct LoadResult {
    avatars: u64,
    p99: Duration,
    mean: Duration,
}

fn run() -> Result<Outcome> {
    let rows = [("spread over the map", Shape::Spread, 2_000), ("in one crowd", Shape::Clustered, 500)];
    let rows = rows.into_iter().map(|(case, shape, first)| {
        let max_avatars = max_avatars(shape, first)?;
        let micros = max_avatars.mean.as_secs_f64() * 1e6 / max_avatars.avatars as f64;
        Ok(Row {
            case,
            ours: format!("{} avatars, {micros:.2} us each per tick", max_avatars.avatars),
            peer: format!("p99 {:.0} ms of {} ms", max_avatars.p99.as_secs_f64() * 1e3, LIMIT.as_millis()),
            ratio: None,
        })
    });
    Ok(Outcome::Rows(rows.collect::<Result<_>>()?))
}

/// Doubles until it is too many, then halves the distance.
fn max_avatars(shape: Shape, first: u64) -> Result<LoadResult> {
    let (mut good, mut next) = (None, first);
    let mut bad = loop {
        match run_load(next, shape) {
            Some(result) => good = Some(result),
            None => break next,
        }
        ensure!(next < MAX_AVATARS, "the measure is too small for this machine");
        next *= 2;
    };
    let mut lowest = good.map_or(0, |result| result.avatars);
    for _ in 0..BISECTIONS {
        let middle = lowest.midpoint(bad);
        match run_load(middle, shape) {
            Some(result) => (good, lowest) = (Some(result), middle),
            None => bad = middle,
        }
    }
    good.ok_or_else(|| anyhow::anyhow!("not even {lowest} avatars are carried"))
}

fn run_load(avatars: u64, shape: Shape) -> Option<LoadResult> {
    let mut load = Load::new(avatars, shape);
    for _ in 0..WARM_UP {
        tick(&mut load);
    }
    let (mut times, mut late) = (Vec::with_capacity(TICKS), 0);
    for _ in 0..TICKS {
        let took = tick(&mut load);
        late += usize::from(took > LIMIT);
        if late > MAX_LATE_TICKS {
            eprintln!("  {shape:?}: {avatars} are too many");
            return None;
        }
        times.push(took);
    }
    times.sort_unstable();
    let (p99, mean) =
        (times[TICKS - 1 - MAX_LATE_TICKS], times.iter().sum::<Duration>() / times.len() as u32);
    eprintln!("  {shape:?}: {avatars} avatars, p99 {p99:.1?}, mean {mean:.1?}");
    Some(LoadResult { avatars, p99, mean })
}

fn tick(load: &mut Load) -> Duration {
    let begin = host::thread_cpu();
    for event in load.tick() {
        if let Event::Cell(update) = event {
            black_box(shardkeep_zone::encode(&update));
        }
    }
    host::thread_cpu() - begin
}
