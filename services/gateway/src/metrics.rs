//! Every metric of the gateway.

use std::sync::LazyLock;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

const CONNECTIONS: &str = "shardkeep_gateway_connections";
pub(crate) const ACCEPTED: &str = "shardkeep_gateway_accepted_total";
pub(crate) const RETRIES: &str = "shardkeep_gateway_quic_retries_total";
pub(crate) const LANES: &str = "shardkeep_gateway_lane_sessions";
pub(crate) const REJECTED_CONNECTIONS: &str = "shardkeep_gateway_rejected_connections_total";
const SESSIONS: &str = "shardkeep_gateway_sessions";
pub(crate) const LINK_DEAD: &str = "shardkeep_gateway_link_dead_sessions";
pub(crate) const HANDSHAKES: &str = "shardkeep_gateway_handshakes_total";
const HANDSHAKE_SECONDS: &str = "shardkeep_gateway_handshake_seconds";
const TICKETS: &str = "shardkeep_gateway_tickets";
pub(crate) const FAULTS: &str = "shardkeep_gateway_faults_total";
pub(crate) const ENDED: &str = "shardkeep_gateway_sessions_ended_total";
const MESSAGES_IN: &str = "shardkeep_gateway_messages_in_total";
const RECORDS_OUT: &str = "shardkeep_gateway_records_out_total";
const BYTES_IN: &str = "shardkeep_gateway_bytes_in_total";
const WRITES: &str = "shardkeep_gateway_writes_total";
const BYTES_OUT: &str = "shardkeep_gateway_bytes_out_total";
const DATAGRAMS_OUT: &str = "shardkeep_gateway_datagrams_out_total";
pub(crate) const KEY_UPDATES: &str = "shardkeep_gateway_key_updates_total";
pub(crate) const REFUSED: &str = "shardkeep_gateway_requests_refused_total";
pub(crate) const ITEMS_DROPPED: &str = "shardkeep_gateway_items_dropped_total";
pub(crate) const SHED: &str = "shardkeep_gateway_state_shed_total";
pub(crate) const OPCODE_MESSAGES: &str = "shardkeep_gateway_opcode_messages_total";
pub(crate) const OPCODE_BYTES: &str = "shardkeep_gateway_opcode_bytes_total";
pub(crate) const OPCODE_MICROSECONDS: &str = "shardkeep_gateway_opcode_microseconds_total";
pub(crate) const GROUPS: &str = "shardkeep_gateway_groups";
const GROUP_LOCK_WAITS: &str = "shardkeep_gateway_group_lock_waits_total";
const PUBLISHED: &str = "shardkeep_gateway_published_total";
const FANNED_OUT: &str = "shardkeep_gateway_fanned_out_total";
pub(crate) const BINDS: &str = "shardkeep_gateway_binds_total";
pub(crate) const FENCES_LATE: &str = "shardkeep_gateway_fences_late_total";
pub(crate) const RESUMES: &str = "shardkeep_gateway_resumes_total";
pub(crate) const FOLLOWS: &str = "shardkeep_gateway_follows_revocations";
pub(crate) const REVOKED: &str = "shardkeep_gateway_sessions_revoked_total";
pub(crate) const MAINTENANCE_DISCONNECTS: &str = "shardkeep_gateway_maintenance_disconnects_total";
pub(crate) const REDIRECTED_NEWCOMERS: &str = "shardkeep_gateway_redirected_newcomers_total";
pub(crate) const BILLING: &str = "shardkeep_gateway_billing_reports_total";
pub(crate) const BILLING_SPOOL: &str = "shardkeep_gateway_billing_spool";

/// Metrics of the hot path, looked up once. They are first used when a client or a backend sends something, long
/// after the recorder is installed.
pub(crate) static HOT: LazyLock<Hot> = LazyLock::new(|| Hot {
    messages_in: counter!(MESSAGES_IN),
    records_out: counter!(RECORDS_OUT),
    bytes_in: counter!(BYTES_IN),
    bytes_out: counter!(BYTES_OUT),
    datagrams_out: counter!(DATAGRAMS_OUT),
    group_lock_waits: counter!(GROUP_LOCK_WAITS),
    published: counter!(PUBLISHED),
    fanned_out: counter!(FANNED_OUT),
    writes: counter!(WRITES),
    connections: gauge!(CONNECTIONS),
    accepted: counter!(ACCEPTED, "lane" => "tcp"),
    attached: counter!(HANDSHAKES, "kind" => "attach", "lane" => "tcp", "outcome" => "ok"),
    handshake_seconds: histogram!(HANDSHAKE_SECONDS),
    sessions: gauge!(SESSIONS),
    tickets: gauge!(TICKETS),
});

pub(crate) struct Hot {
    pub(crate) messages_in: Counter,
    pub(crate) records_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) datagrams_out: Counter,
    pub(crate) group_lock_waits: Counter,
    pub(crate) published: Counter,
    pub(crate) fanned_out: Counter,
    pub(crate) writes: Counter,
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    /// Successful attaches over TCP, which are most handshakes of a login storm.
    pub(crate) attached: Counter,
    pub(crate) handshake_seconds: Histogram,
    pub(crate) sessions: Gauge,
    pub(crate) tickets: Gauge,
}

pub(crate) fn describe() {
    shardkeep_link::describe();
    describe_gauge!(CONNECTIONS, Unit::Count, "Client connections that are open");
    describe_counter!(ACCEPTED, "Client connections accepted, by lane (a WebSocket begins as tcp)");
    describe_counter!(
        RETRIES,
        "QUIC handshakes answered with Retry, which makes the client prove its address"
    );
    describe_gauge!(LANES, Unit::Count, "Connections that carry a session, by lane (tcp, quic, ws, wss)");
    describe_counter!(REJECTED_CONNECTIONS, "Client connections closed at once, by reason");
    describe_gauge!(SESSIONS, Unit::Count, "Sessions held, link-dead ones included");
    describe_gauge!(LINK_DEAD, Unit::Count, "Sessions whose client is disconnected");
    describe_counter!(HANDSHAKES, "Handshakes, by kind (attach, resume), lane and outcome");
    describe_histogram!(HANDSHAKE_SECONDS, Unit::Seconds, "From the preface to SessionReady");
    describe_gauge!(TICKETS, Unit::Count, "Tickets waiting for their client");
    describe_counter!(FAULTS, "Violations of clients, by label");
    describe_counter!(ENDED, "Sessions that ended, by reason");
    describe_counter!(MESSAGES_IN, "Messages of clients");
    describe_counter!(RECORDS_OUT, "Records written to clients");
    describe_counter!(WRITES, "Writes to clients' sockets; each takes everything that was due to one client");
    describe_counter!(BYTES_IN, Unit::Bytes, "Bytes read from clients");
    describe_counter!(BYTES_OUT, Unit::Bytes, "Bytes written to clients");
    describe_counter!(DATAGRAMS_OUT, "State sent to clients in datagrams of QUIC");
    describe_counter!(KEY_UPDATES, "Key updates, by side");
    describe_counter!(REFUSED, "Requests answered by the gateway itself, by reason");
    describe_counter!(ITEMS_DROPPED, "Items of backends that were ignored, by reason");
    describe_counter!(SHED, "State messages not sent to slow clients");
    describe_counter!(
        OPCODE_MESSAGES,
        "Messages by opcode and direction; a studio's in blocks of 256 opcodes"
    );
    describe_counter!(OPCODE_BYTES, Unit::Bytes, "Bytes of messages, by opcode and direction");
    describe_counter!(
        OPCODE_MICROSECONDS,
        "Wall time spent on messages, by opcode: one in 64 is timed, counted 64 times, with whatever else had the core meanwhile"
    );
    describe_gauge!(GROUPS, Unit::Count, "Groups with a subscriber here");
    describe_counter!(GROUP_LOCK_WAITS, "Times that a thread found the lock of the groups taken");
    describe_counter!(PUBLISHED, "Messages published to groups");
    describe_counter!(FANNED_OUT, "Copies of published messages queued for clients");
    describe_counter!(BINDS, "Binds obeyed, by kind of backend");
    describe_counter!(FENCES_LATE, "Sessions that moved before every backend had answered Fence");
    describe_counter!(RESUMES, "Sessions resumed, by way (here, moved, claimed)");
    describe_gauge!(FOLLOWS, Unit::Count, "1 while this gateway follows a login replica for revocations");
    describe_counter!(REVOKED, "Sessions ended by a revocation of the followed login replica");
    describe_counter!(MAINTENANCE_DISCONNECTS, "Sessions ended because operators have closed their world");
    describe_counter!(REDIRECTED_NEWCOMERS, "Newcomers redirected because another gateway has more room");
    describe_counter!(BILLING, "Play time reports acknowledged by billing");
    describe_gauge!(BILLING_SPOOL, Unit::Count, "Ended sessions whose play time is not yet acknowledged");
}
