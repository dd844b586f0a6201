//! Connections from a crowd. Half hang up at once, half say nothing for as long as the server bears it.

use std::sync::Arc;

use crate::{
    attempt::{ConnectionAttack, run_per_connection},
    connection::{ConnectionEnd, RawConnection},
    context::AttackContext,
    source,
    tally::Tally,
};

struct Silent;

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || Some((targets.endpoint().at(), Silent))).await;
}

impl ConnectionAttack for Silent {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        if source::below(2) == 0 {
            tally.accepted("hung up");
            return;
        }
        let end = connection.end(ctx.until()).await;
        tally.record_duration(connection.age());
        match end {
            ConnectionEnd::Open => tally.accepted("still open"),
            end => tally.refused(&end.label()),
        }
    }
}
