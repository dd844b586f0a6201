//! Walking: wishes of a velocity, and a way to a place made of them.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_types::Position;
use shardkeep_wire::{
    movement::{Move, class},
    opcode,
};
use tokio::time::timeout;

use super::{Player, View};
use crate::ClientError;

/// The server's limit.
pub const MAX_SPEED: f64 = 6_000.0;
/// Near enough to have arrived.
const ARRIVED_MM: f64 = 250.0;
/// Brakes so that the last step does not go past the end: speed is at most the distance times this, per second.
const BRAKE: f64 = 4.0;
/// A wish is repeated only when it differs by more than this, in mm/s, or after [`RESEND_AFTER`].
const MIN_VELOCITY_CHANGE: i32 = 150;
const RESEND_AFTER: Duration = Duration::from_millis(500);

impl Player {
    /// Wishes to move at this velocity in mm/s, until the next wish. The avatar faces where it goes.
    pub async fn walk(&self, vx: i16, vy: i16) -> Result<(), ClientError> {
        let facing = if vx == 0 && vy == 0 { self.facing() } else { facing(vx.into(), vy.into()) };
        self.move_request([vx, vy], facing).await
    }

    /// Wishes to stand.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.walk(0, 0).await
    }

    /// Sends a wish as it is.
    pub async fn move_request(&self, velocity: [i16; 2], facing: u8) -> Result<(), ClientError> {
        let sequence = self.sequence.fetch_add(1, Relaxed).wrapping_add(1);
        let mut payload = BytesMut::with_capacity(Move::LENGTH);
        Move { sequence, velocity, facing }.encode(&mut payload);
        self.session.send_state(opcode::MOVE, class::OWN, 0, payload.freeze()).await
    }

    /// Walks straight to a place, in mm, and stands there. Obstacles are not avoided: `within` ends the attempt.
    pub async fn move_to(&self, x_mm: i32, y_mm: i32, within: Duration) -> Result<Position, ClientError> {
        let walking = timeout(within, self.steer(x_mm, y_mm)).await;
        self.stop().await?;
        walking.map_err(|_| ClientError::Timeout("the arrival"))?
    }

    async fn steer(&self, x_mm: i32, y_mm: i32) -> Result<Position, ClientError> {
        let mut changes = self.changes.clone();
        let mut last = ([0i16; 2], None::<Instant>);
        loop {
            changes.borrow_and_update();
            if let Some(here) = self.with_view(View::position) {
                let (dx, dy) = (f64::from(x_mm - here.x_mm), f64::from(y_mm - here.y_mm));
                let distance = dx.hypot(dy);
                if distance <= ARRIVED_MM {
                    return Ok(here);
                }
                let speed = MAX_SPEED.min(distance * BRAKE) / distance;
                let move_request = [(dx * speed) as i16, (dy * speed) as i16];
                if differs(move_request, last.0) || last.1.is_none_or(|sent| sent.elapsed() >= RESEND_AFTER) {
                    self.walk(move_request[0], move_request[1]).await?;
                    last = (move_request, Some(Instant::now()));
                }
            }
            // News of the avatar, or time to repeat the wish: one may be lost with a connection.
            if let Ok(Err(_)) = timeout(RESEND_AFTER, changes.changed()).await {
                return Err(ClientError::Ended(self.session.ended().await));
            }
        }
    }

    fn facing(&self) -> u8 {
        self.with_view(|view| view.avatar.map_or(0, |avatar| avatar.facing))
    }
}

fn differs(a: [i16; 2], b: [i16; 2]) -> bool {
    a.iter().zip(b).any(|(a, b)| (i32::from(*a) - i32::from(b)).abs() > MIN_VELOCITY_CHANGE)
}

/// In 1/256 turns, counter-clockwise from +x.
fn facing(x: f64, y: f64) -> u8 {
    let turns = y.atan2(x) / std::f64::consts::TAU;
    (turns * 256.0).round().rem_euclid(256.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facing_increases_counter_clockwise() {
        let all = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, -0.001)];
        assert_eq!(all.map(|(x, y)| facing(x, y)), [0, 64, 128, 192, 0]);
    }
}
