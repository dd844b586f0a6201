//! The live map: a canvas, and the stream of pictures that a script draws on it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State},
    response::sse::{Event, KeepAlive, Sse},
};
use futures::Stream;
use maud::{Markup, html};
use serde::Deserialize;
use shardkeep_types::{SpaceId, WorldId};

use super::{
    caller::Caller,
    elements::hidden,
    error::WebError,
    layout::{self, Flash, command},
    site::Site,
};
use crate::{map::Viewer, role::Right};

/// Time between two checks that the session of a stream has not ended.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MapQuery {
    world: u32,
    /// 0 is space 1.
    space: u32,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<MapQuery>,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    caller.require(Right::SeeMap)?;
    let worlds = site.console().peers().worlds();
    let world = if query.world == 0 { worlds.first().map_or(0, |world| world.world.0) } else { query.world };
    let space = query.space.max(1);
    let body = html! {
        @if worlds.len() > 1 {
            p.pages {
                @for instance in &worlds {
                    a.button href={ "/map?world=" (instance.world) } {
                        @match instance.attributes.get("name") {
                            Some(name) => (name),
                            None => { "World " (instance.world) },
                        }
                    }
                }
            }
        }
        p #spaces .pages hidden {}
        div.map {
            (picture(world, space))
            aside {
                p #figures .hint { "Waiting for the zones." }
                ul #legend .legend {}
                ul.legend {
                    li { i.avatar {} "player" }
                    li { i.creature {} "creature" }
                    li { i.item {} "item on the ground" }
                }
                (teleport(&caller, world, space).unwrap_or_default())
                p.hint {
                    "Drag the map or press the arrow keys to move it. Turn the wheel, pinch, or press + and − to zoom. "
                    "Press 0 to see the whole map. Click a player, then a place, to fill in the teleport form."
                }
            }
        }
        script src="/static/map.js" defer {}
    };
    Ok(layout::page(&site, &caller, "/map", &flash, None, body).await)
}

fn picture(world: u32, space: u32) -> Markup {
    html! {
        div.picture {
            canvas #map data-world=(world) data-space=(space) tabindex="0" role="img"
                aria-label="Map of the world. The arrow keys move it, plus and minus zoom, 0 shows the whole map." {}
            div #tip .tip hidden {}
            p #lost .notice.bad hidden { "The connection is lost. The page tries to connect again." }
        }
    }
}

fn teleport(caller: &Caller, world: u32, space: u32) -> Option<Markup> {
    let fields = html! {
        (hidden("world", &world.to_string()))
        (hidden("space", &space.to_string()))
        label { "Character" input #who name="character" required autocomplete="off"; }
        @for axis in ["x", "y"] {
            label { (axis) " (m)" input id=(axis) name=(axis) type="number" min="0" step="any" required; }
        }
    };
    let back = format!("/map?world={world}&space={space}");
    let form = command(caller, Right::Teleport, "teleport", &back, &fields, "Teleport")?;
    Some(html! { section.card { h2 { "Teleport" } (form) } })
}

pub(crate) async fn events(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<MapQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, WebError> {
    caller.require(Right::SeeMap)?;
    let console = site.console();
    let viewer = console.map().add_viewer(console.config().map_viewers).ok_or(WebError::TooManyViewers)?;
    let (world, space) = (WorldId(query.world), SpaceId(query.space.max(1)));
    let stream = PictureStream { site, viewer, world, space, caller, checked: Instant::now() };
    let events = futures::stream::unfold(stream, async |mut stream| {
        stream.next().await.map(|picture| (Ok(Event::default().data(&*picture)), stream))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct PictureStream {
    site: Site,
    viewer: Viewer,
    world: WorldId,
    space: SpaceId,
    caller: Caller,
    checked: Instant,
}

impl PictureStream {
    /// The next picture. Returns `None` when the daemon drains or the session has ended.
    async fn next(&mut self) -> Option<Arc<str>> {
        let next = self.viewer.next_picture(self.world, self.space);
        let picture = self.site.draining().run_until_cancelled(next).await??;
        if self.checked.elapsed() >= SESSION_CHECK_INTERVAL {
            self.caller = self.caller.refreshed(&self.site).await?;
            self.checked = Instant::now();
        }
        Some(picture)
    }
}
