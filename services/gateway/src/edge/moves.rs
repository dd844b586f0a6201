//! Hands a session over to another gateway, at which its client has proved itself. No message is lost or sent twice; see
//! "A session moves" in `docs/design/sessions.md`.
//!
//! This gateway sends `Fence` to every backend of the session and waits until each has answered after all its earlier
//! messages. Only then does it seal the snapshot. The next gateway subscribes the session to its groups and sends `Lift`:
//! the backends then send what they kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use shardkeep_auth::Key;
use shardkeep_link::GatewayLink;
use shardkeep_rpc::{
    Malformed,
    gateway::{Binding, InFlightRequest, MoveSessionReply},
};
use shardkeep_types::{BackendKind, Epoch};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tonic::Status;
use tracing::warn;

use crate::{
    app::App,
    domain::session::{HeldBinding, Session, Snapshot},
    metrics::FENCES_LATE,
};

/// How long a session waits for replies of backends that put up no fence, and how often it looks.
const REPLY_WAIT: Duration = Duration::from_millis(150);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Gives the session away; it is over here.
///
/// # Errors
/// `ABORTED`: it has changed hands, or has ended meanwhile.
pub(super) async fn hand_over(
    app: &App,
    session: &Arc<Session>,
    epoch: Epoch,
) -> Result<MoveSessionReply, Status> {
    let settled = fence(app, session, epoch)?;
    if timeout(app.config().move_within / 2, settled).await.is_err() {
        // Messages that the backend sends before the session is announced to it again are lost, as if this gateway had
        // died.
        counter!(FENCES_LATE).increment(1);
        warn!(session = %session.id(), "a backend did not put up its fence in time");
    }
    await_unfenced_replies(session).await;
    // Under the lock of the groups, so that the list of groups fits the log.
    let snapshot = app.with_groups(|groups| {
        (session.lock().seal(epoch, groups.subscribed_groups(session.id())), Vec::new())
    });
    let snapshot = snapshot.ok_or_else(changed_hands)?;
    app.finish(session);
    Ok(reply(snapshot))
}

/// Asks the session's backends to keep what they say from now on. The receiver tells when all have answered.
fn fence(app: &App, session: &Arc<Session>, epoch: Epoch) -> Result<oneshot::Receiver<()>, Status> {
    let subscribed = app.with_groups(|groups| (groups.subscribed_groups(session.id()), Vec::new()));
    let mut state = session.lock();
    if !state.start_move(epoch, Instant::now()) {
        return Err(changed_hands());
    }
    let mut links: Vec<GatewayLink> =
        state.instances().filter_map(|instance| app.links().get(instance)).collect();
    // Backends to which the session is not bound publish to groups of many writers too.
    for key in subscribed.into_iter().filter(|key| key.many_writer()) {
        let mut writers = app.links().all_serving(key.backend(), session.world());
        writers.retain(|link| !links.iter().any(|other| other.backend() == link.backend()));
        links.append(&mut writers);
    }
    let fence = session.fence(&state);
    links.retain(|link| link.fence(fence));
    let settled = state.await_fences(links.iter().map(|link| link.backend().clone()).collect());
    drop(state);
    // A connection that still stands finds that it does not carry the session any more.
    session.waker().notify();
    Ok(settled)
}

/// Waits for replies that backends without fences have yet to send.
async fn await_unfenced_replies(session: &Session) {
    let until = Instant::now() + REPLY_WAIT;
    while session.lock().awaits_unfenced_replies() && Instant::now() < until {
        sleep(POLL_INTERVAL).await;
    }
}

fn reply(snapshot: Snapshot) -> MoveSessionReply {
    let binding = |it: HeldBinding| Binding {
        kind: it.kind.0.into(),
        instance: it.instance.to_string(),
        bind_epoch: it.epoch.0,
        held: it.held.into_iter().map(Into::into).collect(),
    };
    let pending = |(request, kind): (u32, BackendKind)| InFlightRequest { request, kind: kind.0.into() };
    MoveSessionReply {
        received_from_client: snapshot.received_from_client,
        sent_to_client: snapshot.sent_to_client,
        unacknowledged: snapshot.unacknowledged.into_iter().map(Into::into).collect(),
        bindings: snapshot.bindings.into_iter().map(binding).collect(),
        groups: snapshot.groups.into_iter().map(Into::into).collect(),
        fenced: snapshot.fenced.iter().map(ToString::to_string).collect(),
        pending: snapshot.pending.into_iter().map(pending).collect(),
        character: snapshot.character,
        queue_place: snapshot.queue_place,
        restart_key: snapshot.restart_key.map(|key| key.expose().to_vec()).unwrap_or_default(),
    }
}

/// Reads the other gateway's reply.
pub(super) fn snapshot(reply: MoveSessionReply) -> Result<Snapshot, Malformed> {
    let binding = |it: Binding| {
        let held = it.held.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let (instance, epoch) = (it.instance.into(), Epoch(it.bind_epoch));
        Ok(HeldBinding { kind: kind(it.kind)?, instance, epoch, held })
    };
    Ok(Snapshot {
        received_from_client: reply.received_from_client,
        sent_to_client: reply.sent_to_client,
        unacknowledged: reply.unacknowledged.into_iter().map(Into::into).collect(),
        bindings: reply.bindings.into_iter().map(binding).collect::<Result<_, Malformed>>()?,
        groups: reply.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        fenced: reply.fenced.into_iter().map(Into::into).collect(),
        pending: reply
            .pending
            .into_iter()
            .map(|it| Ok((it.request, kind(it.kind)?)))
            .collect::<Result<_, Malformed>>()?,
        character: reply.character,
        queue_place: reply.queue_place,
        restart_key: <[u8; 32]>::try_from(reply.restart_key).ok().map(Key::new),
    })
}

fn changed_hands() -> Status {
    Status::aborted("the session has changed hands")
}

fn kind(number: u32) -> Result<BackendKind, Malformed> {
    u8::try_from(number).map(BackendKind).map_err(|error| Malformed::new("kind", error))
}
