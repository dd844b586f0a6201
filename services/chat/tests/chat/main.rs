//! Black-box tests: real chats over mutual TLS and a real Redis, and doubles of the daemons they talk to.

mod cluster;
mod speaker;

use shardkeep_rpc::chat::{HistoryRequest, MuteRequest};
use shardkeep_testkit::Redis;
use shardkeep_wire::payload::{Channel, ErrorCode};

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_form_one_chat() {
    let redis = Redis::start().await;
    let mut cluster = Cluster::start().await;
    let _first = cluster.chat("chat-1", &redis.url()).await;
    let second = cluster.chat("chat-2", &redis.url()).await;
    let mut one = cluster.speaker("gateway-1", "chat-1", 1).await;
    let mut two = cluster.speaker("gateway-2", "chat-2", 2).await;
    let mut three = cluster.speaker("gateway-3", "chat-2", 3).await;
    for (channel, to) in [(Channel::Say, ""), (Channel::World, ""), (Channel::Whisper, "hero2")] {
        let text = format!("by {}", channel.as_str_name());
        assert_eq!(one.speak(channel, &text, to).await, None);
        let next_line = two.next_line().await;
        assert_eq!((next_line.channel(), next_line.from.as_str(), next_line.text), (channel, "Hero1", text));
    }
    assert_eq!(three.next_line().await.channel(), Channel::World, "it is too far away for the others");
    assert_eq!(one.speak(Channel::Whisper, "hello?", "Nobody").await, Some(ErrorCode::NotFound));
    let lines = cluster.moderator(&second).history(HistoryRequest { limit: 100 }).await.unwrap();
    let lines: Vec<String> = lines.into_inner().lines.into_iter().map(|line| line.text).collect();
    assert_eq!(lines, ["by SAY", "by WORLD", "by WHISPER"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mute_at_one_replica_applies_at_the_other() {
    let redis = Redis::start().await;
    let mut cluster = Cluster::start().await;
    let first = cluster.chat("chat-1", &redis.url()).await;
    let _second = cluster.chat("chat-2", &redis.url()).await;
    let mut one = cluster.speaker("gateway-1", "chat-1", 1).await;
    let mut two = cluster.speaker("gateway-2", "chat-2", 2).await;
    let mute = MuteRequest {
        character: "HERO2".into(),
        until_ms: u64::MAX,
        reason: "rude".into(),
        issued_ms: 1,
        restored: false,
    };
    cluster.moderator(&first).mute(mute).await.unwrap();
    // The line that follows the mute shows that the other replica has it.
    assert_eq!(one.speak(Channel::World, "after", "").await, None);
    assert_eq!(two.next_line().await.text, "after");
    assert_eq!(two.speak(Channel::Say, "hi", "").await, Some(ErrorCode::Refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_chat_continues_while_redis_hangs() {
    let redis = Redis::start().await;
    let mut cluster = Cluster::start().await;
    let _chat = cluster.chat("chat-1", &redis.url()).await;
    let mut one = cluster.speaker("gateway-1", "chat-1", 1).await;
    let mut two = cluster.speaker("gateway-2", "chat-1", 2).await;
    redis.freeze();
    assert_eq!(one.speak(Channel::Say, "still here?", "").await, None);
    assert_eq!(two.next_line().await.text, "still here?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_replica_on_memory_bus_refuses_to_start() {
    let cluster = Cluster::start().await;
    let _first = cluster.chat("chat-1", "memory:").await;
    let second = cluster.launch("chat-2", "memory:").await;
    let error = format!("{:#}", second.join().await.unwrap_err());
    assert!(error.contains("chat.bus") && error.contains("redis://"), "{error}");
}
