//! Every metric of the chat daemon.

pub(crate) const LINES: &str = "shardkeep_chat_lines_total";
pub(crate) const REFUSED: &str = "shardkeep_chat_refused_total";
pub(crate) const DELIVERED: &str = "shardkeep_chat_delivered_total";
pub(crate) const SESSIONS: &str = "shardkeep_chat_sessions";
pub(crate) const AVATARS: &str = "shardkeep_chat_avatars";
pub(crate) const MISSED: &str = "shardkeep_chat_missed_total";
pub(crate) const MUTES: &str = "shardkeep_chat_mutes_total";

pub(crate) fn describe() {
    metrics::describe_counter!(LINES, "Chat lines sent at this replica, by channel");
    metrics::describe_counter!(REFUSED, "Chat lines refused, by reason");
    metrics::describe_counter!(
        DELIVERED,
        "Chat lines sent to single sessions (lines to a whole world are not counted)"
    );
    metrics::describe_gauge!(SESSIONS, "Sessions that this replica serves");
    metrics::describe_gauge!(AVATARS, "Avatars in the world, as reported by the world");
    metrics::describe_counter!(MISSED, "Messages of other replicas that were lost or unreadable");
    metrics::describe_counter!(MUTES, "Mutes and unmutes by moderators");
}
