//! Every metric of the DNS daemon. The counters of the hot path are looked up once.

use metrics::{Counter, counter, describe_counter, describe_gauge};

use crate::{cookie::CookieStatus, query::MalformedReason, responder::Transport, wire::Code};

/// Answers by transport and response code.
pub(crate) const ANSWERS: &str = "shardkeep_dns_answers_total";
/// Packets that got no answer, by reason.
pub(crate) const DROPPED: &str = "shardkeep_dns_dropped_packets_total";
/// Queries by the way they were read.
pub(crate) const QUERIES: &str = "shardkeep_dns_queries_total";
pub(crate) const MALFORMED: &str = "shardkeep_dns_malformed_packets_total";
pub(crate) const COOKIES: &str = "shardkeep_dns_cookies_total";
/// Answers that the rate limit held back, by what was done instead.
pub(crate) const LIMITED: &str = "shardkeep_dns_limited_answers_total";
/// Networks whose allowance was forgotten because others needed the place.
pub(crate) const RATE_EVICTIONS: &str = "shardkeep_dns_rate_evictions_total";
/// Answers that the client's region had a say in, by what told the region.
pub(crate) const STEERED: &str = "shardkeep_dns_steered_answers_total";
pub(crate) const TRUNCATED: &str = "shardkeep_dns_truncated_answers_total";
/// UDP packets come in batches: the more, the less each costs.
pub(crate) const BATCHES: &str = "shardkeep_dns_batches_total";
pub(crate) const TCP_CONNECTIONS: &str = "shardkeep_dns_tcp_connections_count";
/// Connections closed because there were too many.
pub(crate) const TCP_REFUSED: &str = "shardkeep_dns_tcp_refused_total";
pub(crate) const TCP_SLOWED: &str = "shardkeep_dns_tcp_slowed_queries_total";
/// Replicas that answers choose from, by name.
pub(crate) const TARGETS: &str = "shardkeep_dns_targets_count";
pub(crate) const VIEW_CHANGES: &str = "shardkeep_dns_view_changes_total";

pub(crate) fn describe() {
    describe_counter!(ANSWERS, "Answers by transport and response code");
    describe_counter!(DROPPED, "Packets without an answer, by reason");
    describe_counter!(QUERIES, "Queries by the way they were read");
    describe_counter!(MALFORMED, "Malformed queries, by what is wrong with them");
    describe_counter!(COOKIES, "Queries by the DNS cookie they came with");
    describe_counter!(LIMITED, "Answers that the rate limit held back, by what was sent instead");
    describe_counter!(
        RATE_EVICTIONS,
        "Networks whose allowance was forgotten because others needed the place"
    );
    describe_counter!(STEERED, "Answers that the client's region decided, by what told the region");
    describe_counter!(TRUNCATED, "UDP answers that were too long and sent their clients to TCP");
    describe_counter!(BATCHES, "Batches that UDP packets came in");
    describe_gauge!(TCP_CONNECTIONS, "Open TCP connections");
    describe_counter!(TCP_REFUSED, "TCP connections closed because there were too many, by bound");
    describe_counter!(
        TCP_SLOWED,
        "Queries over TCP that were made to wait because their client asks too fast"
    );
    describe_gauge!(TARGETS, "Replicas that answers choose from, by name");
    describe_counter!(VIEW_CHANGES, "Changes of what answers choose from");
}

pub(crate) fn rate_evictions() -> Counter {
    counter!(RATE_EVICTIONS)
}

/// What became of an answer that the rate limit held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    Dropped,
    Truncated,
    BadCookie,
}

impl Limited {
    const ALL: [Self; 3] = [Self::Dropped, Self::Truncated, Self::BadCookie];

    fn label(self) -> &'static str {
        match self {
            Self::Dropped => "nothing",
            Self::Truncated => "truncated",
            Self::BadCookie => "badcookie",
        }
    }
}

/// Counters of one loop.
pub(crate) struct Counters {
    answers: [Counter; Code::ALL.len()],
    malformed: [Counter; MalformedReason::ALL.len()],
    cookies: [Counter; CookieStatus::ALL.len()],
    no_cookie: Counter,
    limited: [Counter; Limited::ALL.len()],
    steered_by_subnet: Counter,
    steered_by_address: Counter,
    pub(crate) fast_path: Counter,
    pub(crate) fallback: Counter,
    pub(crate) not_a_query: Counter,
    pub(crate) unsent: Counter,
    pub(crate) truncated: Counter,
    pub(crate) batches: Counter,
}

impl Counters {
    pub(crate) fn new(transport: Transport) -> Self {
        let transport = transport.label();
        Self {
            answers: Code::ALL
                .map(|code| counter!(ANSWERS, "transport" => transport, "code" => code.label())),
            malformed: MalformedReason::ALL.map(|reason| counter!(MALFORMED, "reason" => reason.label())),
            cookies: CookieStatus::ALL.map(|status| counter!(COOKIES, "cookie" => status.label())),
            no_cookie: counter!(COOKIES, "cookie" => "none"),
            limited: Limited::ALL.map(|limited| counter!(LIMITED, "sent" => limited.label())),
            steered_by_subnet: counter!(STEERED, "by" => "subnet"),
            steered_by_address: counter!(STEERED, "by" => "address"),
            fast_path: counter!(QUERIES, "path" => "fast"),
            fallback: counter!(QUERIES, "path" => "fallback"),
            not_a_query: counter!(DROPPED, "transport" => transport, "reason" => "not_a_query"),
            unsent: counter!(DROPPED, "transport" => transport, "reason" => "not_sent"),
            truncated: counter!(TRUNCATED),
            batches: counter!(BATCHES),
        }
    }

    pub(crate) fn answered(&self, code: Code) {
        count(&self.answers, &Code::ALL, code);
    }

    pub(crate) fn malformed(&self, reason: MalformedReason) {
        count(&self.malformed, &MalformedReason::ALL, reason);
    }

    /// `None`: the query had no cookie.
    pub(crate) fn cookie(&self, status: Option<CookieStatus>) {
        match status {
            Some(status) => count(&self.cookies, &CookieStatus::ALL, status),
            None => self.no_cookie.increment(1),
        }
    }

    pub(crate) fn limited(&self, limited: Limited) {
        count(&self.limited, &Limited::ALL, limited);
    }

    pub(crate) fn steered(&self, by_subnet: bool) {
        let counter = if by_subnet { &self.steered_by_subnet } else { &self.steered_by_address };
        counter.increment(1);
    }
}

fn count<K: PartialEq + Copy>(counters: &[Counter], kinds: &[K], kind: K) {
    if let Some(at) = kinds.iter().position(|known| *known == kind) {
        counters[at].increment(1);
    }
}
