//! The live map: a canvas, and the stream of pictures that a script draws on it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State},
    response::{
        Html,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::Stream;
use serde::Deserialize;
use shardkeep_types::WorldId;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, command, hidden},
};
use crate::{clock::now_ms, map::Viewer, role::Right, sessions::OperatorSession};

/// How often a stream asks whether its session still lives.
const RECHECK: Duration = Duration::from_secs(15);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MapQuery {
    world: u32,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<MapQuery>,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeMap)?;
    let worlds = site.console.peers.worlds();
    let world = if query.world == 0 { worlds.first().map_or(0, |world| world.world.0) } else { query.world };
    let choice: Markup = worlds
        .iter()
        .map(|instance| {
            let name = instance
                .attributes
                .get("name")
                .cloned()
                .unwrap_or_else(|| format!("world {}", instance.world));
            html!("<a class=\"button\" href=\"/map?world={}\">{}</a>"; instance.world, name)
        })
        .collect();
    let choice = (worlds.len() > 1).then(|| html!("<p class=\"pages\">{}</p>"; choice));
    let body = html!(
        "{}<div class=\"map\"><div class=\"picture\"><canvas id=\"map\" data-world=\"{}\" tabindex=\"0\" role=\"img\" "
        "aria-label=\"Map of the world. Arrow keys move the view, plus and minus zoom, 0 shows everything.\"></canvas>"
        "<div id=\"tip\" class=\"tip\" hidden></div><p id=\"lost\" class=\"notice bad\" hidden>The connection is lost; \
         trying again.</p></div>"
        "<aside><p id=\"figures\" class=\"hint\">Waiting for the zones.</p>"
        "<ul class=\"legend\" id=\"legend\"></ul><ul class=\"legend\"><li><i class=\"avatar\"></i>player"
        "<li><i class=\"creature\"></i>creature<li><i class=\"item\"></i>item on the ground</ul>{}"
        "<p class=\"hint\">Drag or use the arrow keys to move, the wheel or + and − to zoom, 0 to see everything. \
         Click a player to choose it, then a place to fill in where to.</p></aside></div>"
        "<script src=\"/static/map.js\" defer></script>";
        choice, world, teleport(&caller, world),
    );
    Ok(layout::page(&site, &caller, "/map", &flash, body).await)
}

fn teleport(caller: &Caller, world: u32) -> Option<Markup> {
    let fields = html!(
        "{}<label>Character <input name=\"character\" id=\"who\" required autocomplete=\"off\"></label>"
        "<label>x (m) <input name=\"x\" id=\"x\" type=\"number\" min=\"0\" step=\"any\" required></label>"
        "<label>y (m) <input name=\"y\" id=\"y\" type=\"number\" min=\"0\" step=\"any\" required></label>";
        hidden("world", &world.to_string()),
    );
    let back = format!("/map?world={world}");
    let form = command(caller, Right::Teleport, "teleport", &back, &fields, "Teleport")?;
    Some(html!("<section class=\"card\"><h2>Teleport</h2>{}</section>"; form))
}

pub(crate) async fn events(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<MapQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, WebError> {
    caller.require(Right::SeeMap)?;
    let viewer =
        site.console.map.add_viewer(site.console.config.map_viewers).ok_or(WebError::TooManyViewers)?;
    let pictures = PictureStream {
        site,
        viewer,
        world: WorldId(query.world),
        session: caller.session,
        checked: Instant::now(),
    };
    let events = futures::stream::unfold(pictures, async |mut pictures| {
        pictures.next().await.map(|picture| (Ok(Event::default().data(&*picture)), pictures))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct PictureStream {
    site: Site,
    viewer: Viewer,
    world: WorldId,
    session: OperatorSession,
    checked: Instant,
}

impl PictureStream {
    /// The next picture of this world; `None` when the daemon drains or the session is over. A slow browser misses
    /// pictures, never gets them late.
    async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            tokio::select! {
                () = self.site.draining.cancelled() => return None,
                changed = self.viewer.pictures.changed() => changed.ok()?,
            }
            self.recheck().await?;
            let picture = self.viewer.pictures.borrow_and_update().get(&self.world).cloned();
            if picture.is_some() {
                return picture;
            }
        }
    }

    async fn recheck(&mut self) -> Option<()> {
        if self.checked.elapsed() < RECHECK {
            return Some(());
        }
        self.checked = Instant::now();
        let found = self.site.console.sessions.find(self.session.token.clone(), false, now_ms()).await;
        found.ok().flatten().map(drop)
    }
}
