//! Two replicas on one Redis, and what happens when it goes away.

use std::time::Duration;

use bytes::Bytes;
use shardkeep_bus::{Bus, Delivery, PublishError, Subscription};
use shardkeep_testkit::Redis;

const TOPIC: &str = "chat";

/// The next message; fails the test if none comes.
async fn next_message(subscription: &mut Subscription) -> Bytes {
    match tokio::time::timeout(Duration::from_secs(20), subscription.next()).await {
        Ok(Some(Delivery::Message(message))) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

#[tokio::test]
async fn redis_bus_delivers_to_all_replicas_in_order() {
    let redis = Redis::start().await;
    let (a, b) = (Bus::open(&redis.url()).unwrap(), Bus::open(&redis.url()).unwrap());
    let (mut at_a, mut at_b) = (a.subscribe(TOPIC), b.subscribe(TOPIC));
    a.subscribed(TOPIC).await;
    b.subscribed(TOPIC).await;
    assert!(a.connected());
    for number in 0..200_u32 {
        a.publish(TOPIC, Bytes::from(number.to_string())).unwrap();
    }
    for number in 0..200_u32 {
        assert_eq!(next_message(&mut at_a).await, number.to_string());
        assert_eq!(next_message(&mut at_b).await, number.to_string());
    }
}

#[tokio::test]
async fn message_published_while_redis_hangs_is_delivered() {
    let redis = Redis::start().await;
    redis.freeze();
    let bus = Bus::open(&redis.url()).unwrap();
    let mut subscription = bus.subscribe(TOPIC);
    assert!(!bus.connected());
    redis.thaw();
    bus.subscribed(TOPIC).await;
    redis.freeze();
    bus.publish(TOPIC, Bytes::from_static(b"still there?")).unwrap();
    redis.thaw();
    assert_eq!(next_message(&mut subscription).await, "still there?");
}

#[tokio::test]
async fn publish_to_hung_redis_is_refused_when_queue_is_full() {
    let redis = Redis::start().await;
    redis.freeze();
    let bus = Bus::open(&redis.url()).unwrap();
    let refused = (0..10_000).find_map(|_| bus.publish(TOPIC, Bytes::from_static(b"x")).err());
    assert_eq!(refused, Some(PublishError::Full));
}
