//! Carries out the effects of a space: over links, as calls of other daemons, and as answers to callers.

use std::{collections::HashMap, sync::Arc};

use shardkeep_journal::Sink;
use shardkeep_link::LinkHub;
use shardkeep_rpc::{presence_parts, world};
use shardkeep_sim::Map;
use shardkeep_types::{BackendKind, InstanceId, SpaceId};
use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::{
        command::Command,
        effect::{Answer, Effect},
        payload::{PresenceReport, ReplyTo},
    },
    edge::{
        ai_feed::{AiFeed, AiGone},
        calls::Calls,
        convert,
        message::Message,
        neighbours::Neighbours,
        switchboard::Switchboard,
    },
    metrics,
};

/// Bound of the stream to the world, in reports. Overflow: the next report is complete again; counted.
pub(crate) const REPORT_QUEUE: usize = 16;

pub(crate) struct Executor {
    me: InstanceId,
    space: SpaceId,
    map: Arc<Map>,
    hub: LinkHub,
    switchboard: Switchboard,
    calls: Calls,
    neighbours: Neighbours,
    presence: Option<mpsc::Sender<world::PresenceReport>>,
    ai: Option<AiFeed>,
    journal: Option<Sink>,
    callers: HashMap<ReplyTo, oneshot::Sender<Answer>>,
    last_caller: u64,
}

impl Executor {
    pub(crate) fn new(
        me: InstanceId,
        space: SpaceId,
        map: Arc<Map>,
        hub: LinkHub,
        switchboard: Switchboard,
        calls: Calls,
        journal: Option<Sink>,
    ) -> Self {
        Self {
            me,
            space,
            map,
            hub,
            switchboard,
            calls,
            neighbours: Neighbours::default(),
            presence: None,
            ai: None,
            journal,
            callers: HashMap::new(),
            last_caller: 0,
        }
    }

    pub(crate) fn database_answers(&self) -> bool {
        self.calls.database_answers()
    }

    /// The command of a message.
    pub(crate) fn receive(&mut self, message: Message) -> Command {
        match message {
            Message::Command(command) => command,
            Message::Call { command, answer } => {
                self.last_caller += 1;
                let reply = ReplyTo(self.last_caller);
                self.callers.insert(reply, answer);
                command(reply)
            }
            Message::AiStream(stream) => {
                self.ai = Some(AiFeed::new(stream));
                Command::AiConnected(true)
            }
        }
    }

    /// A stream to the leading world is open.
    pub(crate) fn presence_stream(&mut self, stream: mpsc::Sender<world::PresenceReport>) -> Command {
        self.presence = Some(stream);
        Command::PresenceLost
    }

    /// Carries out an effect. Returns a command when the space must know that it failed.
    pub(crate) fn execute(&mut self, effect: Effect) -> Option<Command> {
        let (hub, calls) = (&self.hub, &self.calls);
        match effect {
            Effect::Send { gateway, session, messages } => hub.send(&gateway, &[session], messages),
            Effect::Subscribe { gateway, session, groups } => hub.subscribe(&gateway, session, &groups, true),
            Effect::Bind { gateway, session, zone, epoch } => {
                hub.bind(&gateway, session, BackendKind::ZONE, &zone, epoch);
            }
            Effect::Ready { gateway, session, bind_epoch } => hub.ready(&gateway, session, bind_epoch),
            Effect::Close { gateway, session, code, detail } => {
                hub.close(&gateway, session, code as u32, detail);
            }
            Effect::Publish { group, epoch, kind, message } => hub.publish(group, epoch, kind, message),
            Effect::Entered { session, character, epoch } => {
                self.switchboard.expect(session, character, self.space, epoch);
            }
            Effect::Left(session) => self.switchboard.left(session, self.space),
            Effect::Answer { to, answer } => {
                if let Some(caller) = self.callers.remove(&to) {
                    // An error means that the caller stopped waiting.
                    let _ = caller.send(answer);
                }
            }
            Effect::Commit { job, fences } => calls.commit(job, fences),
            Effect::Recall { job } => calls.recall(job),
            Effect::LoadGround(cells) => calls.load_ground(cells),
            Effect::Save(states) => calls.save(&states),
            Effect::Release(state) => calls.release(state),
            Effect::Load(character) => calls.load(character),
            Effect::Offer { to, offered } => calls.offer(&to, &offered),
            Effect::Transfer { to, state } => calls.transfer(&to, state),
            Effect::Settle { to, settlement } => calls.settle(&to, settlement),
            Effect::GiveSpawns { to, spawns } => calls.give_spawns(&to, spawns),
            Effect::Mirror { to, snapshot } => calls.mirror(&to, &snapshot),
            Effect::OpenNeighbour { zone, grpc_address } => self.neighbours.open(calls, zone, &grpc_address),
            Effect::CloseNeighbour { zone } => self.neighbours.close(&zone),
            Effect::Frame { zone, frame } => {
                let unrepeated = frame.unrepeated();
                let sent = self.neighbours.send(&zone, convert::frame(&self.me, self.space, frame));
                return (!sent).then(|| Command::FramesLost { zone, lost: Box::new(unrepeated) });
            }
            Effect::Journal(batch) => {
                let records = batch.records;
                let is_written = self.journal.as_ref()?.write(batch);
                return (!is_written).then_some(Command::JournalLost { records });
            }
            Effect::Presence(report) => return self.report(report),
            Effect::Perceptions { tick, elapsed_ms, creatures } => {
                let ai = self.ai.as_mut()?;
                if let Err(AiGone) = ai.send(&self.me.name, &self.map, tick, elapsed_ms, &creatures) {
                    self.ai = None;
                    return Some(Command::AiConnected(false));
                }
            }
        }
        None
    }

    /// Without a stream the report is dropped, because a new stream begins with a complete report.
    fn report(&mut self, report: PresenceReport) -> Option<Command> {
        let stream = self.presence.as_ref()?;
        let report = convert::presence(&self.me, report);
        match presence_parts(report).into_iter().try_for_each(|part| stream.try_send(part)) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::dropped("presence");
                Some(Command::PresenceLost)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.presence = None;
                None
            }
        }
    }
}
