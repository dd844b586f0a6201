//! Replicas on real Redis servers: order, outages, and a fail-over.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use shardkeep_bus::{Bus, Delivery, PublishError, Subscription};
use shardkeep_testkit::{AddressSwitch, Redis};
use tokio::sync::Mutex;

const TOPIC: &str = "chat";

/// Tests that interrupt connections take turns, because one recorder counts for all of them.
static INTERRUPTION: Mutex<()> = Mutex::const_new(());

/// Interruptions counted since the first call, in this process.
fn gaps() -> u64 {
    static RECORDER: LazyLock<PrometheusHandle> =
        LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());
    let page = RECORDER.render();
    let counts = page.lines().filter(|line| line.starts_with("shardkeep_bus_gaps_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// The next message; fails the test if none arrives.
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
    let _turn = INTERRUPTION.lock().await;
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
    let _turn = INTERRUPTION.lock().await;
    let redis = Redis::start().await;
    redis.freeze();
    let bus = Bus::open(&redis.url()).unwrap();
    let refused = (0..10_000).find_map(|_| bus.publish(TOPIC, Bytes::from_static(b"x")).err());
    assert_eq!(refused, Some(PublishError::Full));
}

/// Publishes until `subscription` receives the message; fails the test after ten seconds.
async fn publish_until_received(from: &Bus, text: &'static str, subscription: &mut Subscription) {
    let received = async {
        loop {
            from.publish(TOPIC, Bytes::from_static(text.as_bytes())).unwrap();
            let next = tokio::time::timeout(Duration::from_millis(200), subscription.next()).await;
            if matches!(next, Ok(Some(Delivery::Message(message))) if message == text) {
                return;
            }
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, received).await.unwrap_or_else(|_| panic!("{text:?} does not arrive"));
}

/// After the fail-over the address leads to the new primary. The first replica keeps its connections to the demoted
/// server, and the second one connects anew.
#[tokio::test]
async fn both_replicas_receive_again_after_redis_failover() {
    let _turn = INTERRUPTION.lock().await;
    let gaps_before = gaps();
    let (first, second) = (Redis::start().await, Redis::start().await);
    second.replicate(&first).await;
    let switch = AddressSwitch::start(first.address()).await;
    let url = format!("redis://{}", switch.address());
    let stayed = Bus::open(&url).unwrap();
    let mut at_stayed = stayed.subscribe(TOPIC);
    stayed.subscribed(TOPIC).await;

    second.promote();
    first.replicate(&second).await;
    switch.switch_to(second.address());
    let moved = Bus::open(&url).unwrap();
    let mut at_moved = moved.subscribe(TOPIC);
    moved.subscribed(TOPIC).await;

    publish_until_received(&stayed, "from the one that stayed", &mut at_moved).await;
    publish_until_received(&moved, "from the one that moved", &mut at_stayed).await;
    assert!(gaps() > gaps_before, "the interruption is not counted");
}

#[tokio::test]
async fn redis_with_tls_is_verified_against_its_authority() {
    let redis = Redis::with_tls().await;
    let bus = Bus::open(&redis.url()).unwrap();
    let mut subscription = bus.subscribe(TOPIC);
    bus.subscribed(TOPIC).await;
    bus.publish(TOPIC, Bytes::from_static(b"sealed")).unwrap();
    assert_eq!(next_message(&mut subscription).await, "sealed");

    let (plain, _) =
        redis.url().split_once('?').map(|(url, query)| (url.to_owned(), query.to_owned())).unwrap();
    let error = shardkeep_bus::inspect(&plain).await.unwrap_err();
    assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");
}
