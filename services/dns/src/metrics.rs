//! Every metric of the DNS daemon. The counters of the hot path are looked up once.

use hickory_proto::op::ResponseCode;
use metrics::{Counter, counter, describe_counter, describe_gauge};

/// Answers by transport and response code.
pub(crate) const ANSWERS: &str = "shardkeep_dns_answers_total";
/// Packets that got no answer, by reason.
pub(crate) const DROPPED: &str = "shardkeep_dns_dropped_packets_total";
pub(crate) const TRUNCATED: &str = "shardkeep_dns_truncated_answers_total";
pub(crate) const TCP_CONNECTIONS: &str = "shardkeep_dns_tcp_connections_count";
/// Connections closed because there were too many.
pub(crate) const TCP_REFUSED: &str = "shardkeep_dns_tcp_refused_total";
/// Replicas that answers choose from, by name.
pub(crate) const TARGETS: &str = "shardkeep_dns_targets_count";
pub(crate) const VIEW_CHANGES: &str = "shardkeep_dns_view_changes_total";

pub(crate) fn describe() {
    describe_counter!(ANSWERS, "Answers by transport and response code");
    describe_counter!(DROPPED, "Packets without an answer, by reason");
    describe_counter!(TRUNCATED, "UDP answers that were too long and sent their clients to TCP");
    describe_gauge!(TCP_CONNECTIONS, "Open TCP connections");
    describe_counter!(TCP_REFUSED, "TCP connections closed because there were too many");
    describe_gauge!(TARGETS, "Replicas that answers choose from, by name");
    describe_counter!(VIEW_CHANGES, "Changes of what answers choose from");
}

/// The response codes that this server gives.
const CODES: [(ResponseCode, &str); 7] = [
    (ResponseCode::NoError, "noerror"),
    (ResponseCode::NXDomain, "nxdomain"),
    (ResponseCode::Refused, "refused"),
    (ResponseCode::FormErr, "formerr"),
    (ResponseCode::NotImp, "notimp"),
    (ResponseCode::ServFail, "servfail"),
    (ResponseCode::BADVERS, "badvers"),
];

/// Counters of one transport.
pub(crate) struct Counters {
    answers: [Counter; CODES.len()],
    pub(crate) dropped: Counter,
    pub(crate) unsent: Counter,
    pub(crate) truncated: Counter,
}

impl Counters {
    pub(crate) fn new(transport: &'static str) -> Self {
        Self {
            answers: CODES.map(|(_, code)| counter!(ANSWERS, "transport" => transport, "code" => code)),
            dropped: counter!(DROPPED, "transport" => transport, "reason" => "not_a_query"),
            unsent: counter!(DROPPED, "transport" => transport, "reason" => "not_sent"),
            truncated: counter!(TRUNCATED),
        }
    }

    pub(crate) fn answered(&self, code: ResponseCode) {
        if let Some(at) = CODES.iter().position(|(known, _)| *known == code) {
            self.answers[at].increment(1);
        }
    }
}
