//! Connections from a crowd. Half hang up at once, half say nothing for as long as the server bears it.

use std::sync::Arc;

use super::{AsyncAttempt, Field, Line, Tally, by_connection};
use crate::attack::{line::End, source};

struct Silent;

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || Some((doors.door().at(), Silent))).await;
}

impl AsyncAttempt for Silent {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        if source::below(2) == 0 {
            tally.accepted("hung up");
            return;
        }
        let end = line.end(field.until()).await;
        tally.held(line.age());
        match end {
            End::Open => tally.accepted("still open"),
            end => tally.refused(&end.word()),
        }
    }
}
