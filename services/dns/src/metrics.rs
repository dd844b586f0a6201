//! The metrics of the DNS daemon. Each loop looks up its counters once.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};

use crate::{cookie::CookieStatus, query::MalformedReason, transport::Transport, view::Service, wire::Code};

/// Answers by transport and response code.
pub(crate) const ANSWERS: &str = "shardkeep_dns_answers_total";
/// Packets that got no answer, by reason.
pub(crate) const DROPPED: &str = "shardkeep_dns_dropped_packets_total";
/// Queries by decoder.
pub(crate) const QUERIES: &str = "shardkeep_dns_queries_total";
pub(crate) const MALFORMED: &str = "shardkeep_dns_malformed_packets_total";
pub(crate) const COOKIES: &str = "shardkeep_dns_cookies_total";
/// Answers that the rate limit dropped or replaced.
pub(crate) const LIMITED: &str = "shardkeep_dns_limited_answers_total";
/// Networks removed from the full table of the rate limit.
pub(crate) const RATE_EVICTIONS: &str = "shardkeep_dns_rate_evictions_total";
/// Answers that depend on the client's region, by the source of the region.
pub(crate) const STEERED: &str = "shardkeep_dns_steered_answers_total";
pub(crate) const TRUNCATED: &str = "shardkeep_dns_truncated_answers_total";
/// Batches of UDP packets.
pub(crate) const BATCHES: &str = "shardkeep_dns_batches_total";
pub(crate) const TCP_CONNECTIONS: &str = "shardkeep_dns_tcp_connections_count";
/// Connections closed because there were too many.
pub(crate) const TCP_REFUSED: &str = "shardkeep_dns_tcp_refused_total";
pub(crate) const TCP_SLOWED: &str = "shardkeep_dns_tcp_slowed_queries_total";
/// Replicas that answers may name, by service.
pub(crate) const TARGETS: &str = "shardkeep_dns_targets_count";
pub(crate) const VIEW_CHANGES: &str = "shardkeep_dns_view_changes_total";

pub(crate) fn describe() {
    describe_counter!(ANSWERS, "Answers by transport and response code");
    describe_counter!(DROPPED, "Packets without an answer, by reason");
    describe_counter!(QUERIES, "Queries by decoder: fast, or fallback");
    describe_counter!(MALFORMED, "Malformed queries, by error");
    describe_counter!(COOKIES, "Queries by DNS cookie: good, new, bad, none");
    describe_counter!(
        LIMITED,
        "Answers that the rate limit stopped, by the reply that was sent: nothing, truncated, badcookie"
    );
    describe_counter!(RATE_EVICTIONS, "Networks removed from the full table of the rate limit");
    describe_counter!(STEERED, "Answers that depend on the client's region, by its source: subnet, address");
    describe_counter!(
        TRUNCATED,
        "UDP answers that were truncated, so that the client repeats the query over TCP"
    );
    describe_counter!(BATCHES, "Batches of UDP packets");
    describe_gauge!(TCP_CONNECTIONS, "Open TCP connections");
    describe_counter!(TCP_REFUSED, "TCP connections closed at a limit, by limit");
    describe_counter!(TCP_SLOWED, "TCP queries that were delayed because the client exceeds its rate");
    describe_gauge!(TARGETS, "Replicas that answers may name, by service");
    describe_counter!(VIEW_CHANGES, "Changes of the replicas that answers may name");
    // Alerts compare these with 0, and a series that does not exist equals nothing.
    for service in Service::ALL {
        gauge!(TARGETS, "name" => service.label()).set(0.0);
    }
    gauge!(TCP_CONNECTIONS).set(0.0);
    counter!(VIEW_CHANGES).increment(0);
    counter!(TCP_SLOWED).increment(0);
}

pub(crate) fn rate_evictions() -> Counter {
    counter!(RATE_EVICTIONS)
}

/// The reply in place of an answer that the rate limit stopped.
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
