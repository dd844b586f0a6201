//! Loads and stores the layout of the world. Each call is repeated until the database answers or the term ends.

use shardkeep_cluster::Backoff;
use shardkeep_rpc::{dbcache, reason};
use shardkeep_types::Term;

use super::{RetryReason, Worker, retry_reason, retryable};
use crate::{
    domain::layout::{Layout, LayoutChange},
    edge::{call::call, layout},
    metrics::LAYOUT_RETRIES,
};

impl Worker {
    /// Loads the stored layout, and gives it to the world.
    pub(super) async fn load_layout(&self, term: Term) {
        let mut backoff = Backoff::default();
        while self.view().held_term() == Some(term) {
            match self.try_load_layout().await {
                Ok(layout) => {
                    return self.handle.tell(move |app, now| app.layout_loaded(now, term, layout)).await;
                }
                Err(why) => pause(&mut backoff, &why).await,
            }
        }
    }

    /// `None`: nothing is stored.
    async fn try_load_layout(&self) -> Result<Option<Layout>, RetryReason> {
        self.term()?;
        let mut rows = dbcache::LoadLayoutReply::default();
        loop {
            let request = dbcache::LoadLayoutRequest { world: self.world().0, after: rows.next.take() };
            let page = retryable(self.require_database()?.load_layout(request)).await?;
            if !rows.spaces.is_empty() && page.revision != rows.revision {
                return Err("the layout changed between two pages".to_owned());
            }
            rows.spaces.extend(page.spaces);
            rows.sectors.extend(page.sectors);
            (rows.revision, rows.next) = (page.revision, page.next);
            (rows.next_space, rows.next_sector) = (page.next_space, page.next_sector);
            if rows.next.is_none() {
                return layout::loaded(rows).map_err(|error| error.to_string());
            }
        }
    }

    /// Stores a change, and tells the world the new revision, or that the database has another layout.
    pub(super) async fn store_layout(&self, term: Term, change: &LayoutChange) {
        let request = layout::change(self.world(), term, change);
        let mut backoff = Backoff::default();
        while self.view().held_term() == Some(term) {
            match self.try_store_layout(&request).await {
                Ok(Some(revision)) => {
                    return self.handle.tell(move |app, _| app.layout_stored(term, revision)).await;
                }
                Ok(None) => return self.handle.tell(move |app, _| app.layout_refused(term)).await,
                Err(why) => pause(&mut backoff, &why).await,
            }
        }
    }

    /// The new revision. `None`: the database has another layout.
    async fn try_store_layout(
        &self,
        request: &dbcache::StoreLayoutRequest,
    ) -> Result<Option<u64>, RetryReason> {
        self.term()?;
        match call(self.require_database()?.store_layout(request.clone())).await {
            Ok(reply) => Ok(Some(reply.revision)),
            Err(status) if matches!(reason(&status), Some("stale_revision" | "invalid")) => {
                tracing::error!(%status, revision = request.revision, "the database has another layout");
                Ok(None)
            }
            Err(status) => Err(retry_reason(&status)),
        }
    }
}

async fn pause(backoff: &mut Backoff, why: &str) {
    metrics::counter!(LAYOUT_RETRIES).increment(1);
    tracing::warn!(why, "the layout is not loaded or stored yet");
    backoff.wait().await;
}
