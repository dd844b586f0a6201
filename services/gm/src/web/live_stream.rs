//! The stream of Server-Sent Events that updates a page in place.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, Query, State},
    response::sse::{Event, KeepAlive, Sse},
};
use futures::Stream;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{
    caller::Caller,
    chat,
    error::WebError,
    live_part::{LivePart, LiveStreamSlot, SentParts},
    messages, overview,
    players::{self, PlayerQuery},
    site::Site,
    worlds,
};

/// Time between two comparisons of a page with what its browser has received.
const INTERVAL: Duration = Duration::from_secs(2);

/// A page that updates itself.
enum LivePage {
    Overview,
    Worlds,
    Players(PlayerQuery),
    Chat,
    Messages,
}

impl LivePage {
    fn new(name: &str, query: PlayerQuery) -> Result<Self, WebError> {
        match name {
            "overview" => Ok(Self::Overview),
            "worlds" => Ok(Self::Worlds),
            "players" => Ok(Self::Players(query)),
            "chat" => Ok(Self::Chat),
            "messages" => Ok(Self::Messages),
            _ => Err(WebError::NotFound),
        }
    }

    async fn parts(&self, site: &Site, caller: &Caller) -> Result<Vec<LivePart>, WebError> {
        match self {
            Self::Overview => overview::parts(site, caller).await,
            Self::Worlds => worlds::parts(site, caller).await,
            Self::Players(query) => players::parts(site, caller, query).await,
            Self::Chat => chat::parts(site, caller).await,
            Self::Messages => messages::parts(site, caller).await,
        }
    }
}

pub(crate) async fn events(
    State(site): State<Site>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<PlayerQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, WebError> {
    let page = LivePage::new(&name, query)?;
    let mut sent = SentParts::default();
    let first = sent.changes(&page.parts(&site, &caller).await?);
    let slot = site.live_streams().open().ok_or(WebError::TooManyLivePages)?;
    let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = LiveStream { site, caller, page, sent, first: Some(first), ticks, _slot: slot };
    let events = futures::stream::unfold(stream, async |mut stream| {
        let changes = stream.next_changes().await?;
        Some((Ok(Event::default().data(Value::from(changes).to_string())), stream))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The state of one stream. It has no queue: changes are computed when the browser has read the changes before.
struct LiveStream {
    site: Site,
    caller: Caller,
    page: LivePage,
    sent: SentParts,
    /// The complete page, which the browser gets first.
    first: Option<Vec<Value>>,
    ticks: Interval,
    _slot: LiveStreamSlot,
}

impl LiveStream {
    /// Waits for changes. Returns `None` when the daemon drains, when the session has ended, and when the operator
    /// may no longer see the page.
    async fn next_changes(&mut self) -> Option<Vec<Value>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            tokio::select! {
                () = self.site.draining().cancelled() => return None,
                _ = self.ticks.tick() => {}
            }
            self.caller = self.caller.refreshed(&self.site).await?;
            let parts = self.page.parts(&self.site, &self.caller).await.ok()?;
            let changes = self.sent.changes(&parts);
            if !changes.is_empty() {
                return Some(changes);
            }
        }
    }
}
