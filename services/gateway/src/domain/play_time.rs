//! Last reports of the play time of ended sessions, kept until billing has acknowledged them. A report is a state, not a
//! difference, so losing or repeating one changes nothing.

use std::collections::HashMap;

use metrics::gauge;
use parking_lot::Mutex;
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::billing::SessionReport;
use shardkeep_types::SessionId;
use tracing::warn;

use crate::{domain::session::Session, metrics::BILLING_SPOOL};

/// Most ended sessions kept while billing does not answer. Overflow: the newest are lost, each with a log line.
const MAX_SPOOLED: usize = 100_000;

#[derive(Default)]
pub(crate) struct PlayTimeSpool(Mutex<HashMap<SessionId, SessionReport>>);

impl PlayTimeSpool {
    pub(crate) fn ended(&self, session: &Session) {
        let mut spool = self.0.lock();
        if spool.len() >= MAX_SPOOLED {
            let (session, account) = (session.id(), session.account().0);
            warn!(%session, account, "play time lost: billing has not answered for too long");
            return;
        }
        spool.insert(session.id(), report(session, true));
        gauge!(BILLING_SPOOL).set(spool.len() as f64);
    }

    pub(crate) fn waiting(&self) -> Vec<SessionReport> {
        self.0.lock().values().cloned().collect()
    }

    pub(crate) fn acknowledged(&self, reports: &[SessionReport]) {
        let mut spool = self.0.lock();
        for report in reports.iter().filter(|report| report.ended) {
            // The session may have come back meanwhile and ended again.
            if let Ok(id) = SessionId::try_from(&*report.session)
                && spool.get(&id) == Some(report)
            {
                spool.remove(&id);
            }
        }
        gauge!(BILLING_SPOOL).set(spool.len() as f64);
    }
}

pub(crate) fn report(session: &Session, ended: bool) -> SessionReport {
    SessionReport {
        session: session.id().as_bytes().to_vec(),
        account: session.account().0,
        world: session.world().0,
        started_ms: session.started_ms(),
        played_ms: unix_millis().saturating_sub(session.started_ms()),
        ended,
        session_epoch: session.lock().epoch().0,
    }
}
