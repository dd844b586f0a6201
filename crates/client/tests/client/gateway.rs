//! A session on one connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shardkeep_client::{
    ClientError, Config, SessionEnd,
    session::{Event, Events, Session, events},
};
use shardkeep_wire::{
    Message, opcode,
    payload::{Announcement, Error, ErrorCode},
    session::{ACK_AFTER, ACK_WITHIN},
};

use super::{
    server::{Gateway, GatewayCommand},
    with_timeout,
};

pub(crate) const ECHO: u16 = 0x9000;

pub(crate) async fn attached(gateways: usize) -> (Gateway, Session, Events) {
    let gateway = Gateway::start(gateways).await;
    let (sink, events) = events(64);
    let mut config = Config::default();
    config.timing.unknown_session_timeout = Duration::from_millis(1);
    let session = with_timeout(Session::attach(&config, gateway.issue_ticket(), sink)).await.unwrap();
    (gateway, session, events)
}

/// A request on its way, and its number.
pub(crate) async fn start_request(
    gateway: &mut Gateway,
    session: &Session,
    payload: &'static [u8],
) -> (tokio::task::JoinHandle<Result<Message, ClientError>>, u32) {
    let asking = session.clone();
    let call = tokio::spawn(async move { asking.call_raw(ECHO, Bytes::from_static(payload), None).await });
    let message = gateway.expect(ECHO).await;
    assert_eq!(&message.payload[..], payload);
    (call, message.head.request().unwrap())
}

pub(crate) fn answer(request: u32, payload: &'static [u8]) -> Message {
    Message::new(ECHO, shardkeep_wire::Head::Reply(request), Bytes::from_static(payload))
}

#[tokio::test]
async fn concurrent_requests_get_their_own_replies() {
    let (mut gateway, session, _events) = attached(1).await;
    let (first, a) = start_request(&mut gateway, &session, b"one").await;
    let (second, b) = start_request(&mut gateway, &session, b"two").await;
    let (third, c) = start_request(&mut gateway, &session, b"three").await;
    let refused = Message::error_reply(c, &Error::of(ErrorCode::Refused, "no"));
    gateway.command(GatewayCommand::Send(vec![refused, answer(b, b"2"), answer(a, b"1")]));
    assert_eq!(&with_timeout(first).await.unwrap().unwrap().payload[..], b"1");
    assert_eq!(&with_timeout(second).await.unwrap().unwrap().payload[..], b"2");
    assert_eq!(with_timeout(third).await.unwrap().unwrap_err().code(), Some(ErrorCode::Refused));
}

#[tokio::test]
async fn reply_after_timeout_is_counted_late() {
    let (mut gateway, session, _events) = attached(1).await;
    let late = session.call_raw(ECHO, Bytes::from_static(b"x"), Duration::from_millis(1)).await;
    assert!(matches!(late, Err(ClientError::Timeout(_))));
    let request = gateway.expect(ECHO).await.head.request().unwrap();
    let (call, next) = start_request(&mut gateway, &session, b"y").await;
    assert_ne!(request, next);
    gateway.command(GatewayCommand::Send(vec![answer(request, b"late"), answer(next, b"in time")]));
    assert_eq!(&with_timeout(call).await.unwrap().unwrap().payload[..], b"in time");
    assert_eq!(session.counts().late_replies, 1);
}

#[tokio::test]
async fn events_arrive_in_order_and_are_acknowledged() {
    let (mut gateway, session, mut events) = attached(1).await;
    let line = |text: &str| Message::event(opcode::ANNOUNCEMENT, &Announcement { text: text.into() });
    (0..40).for_each(|n| gateway.send(line(&n.to_string())));
    for n in 0..40 {
        assert_eq!(with_timeout(events.next()).await, Some(Event::Message(line(&n.to_string()))));
    }
    let ack: shardkeep_wire::payload::Ack = gateway.expect(opcode::ACK).await.decode().unwrap();
    assert!((1..=40).contains(&ack.received));
    assert_eq!(session.counts().received_messages, 40);
}

/// A gateway strikes who acknowledges more often than a hundred times a second.
#[tokio::test]
async fn busy_client_batches_acknowledgements() {
    const REQUESTS: usize = 200;
    let (mut gateway, session, _events) = attached(1).await;
    let (mut acks, begun) = (0, Instant::now());
    for _ in 0..REQUESTS {
        let asking = session.clone();
        let call =
            tokio::spawn(async move { asking.call_raw(ECHO, Bytes::from_static(b"again"), None).await });
        let count = |earlier: Message| acks += usize::from(earlier.opcode == opcode::ACK);
        let request = gateway.expect_after(ECHO, count).await.head.request().unwrap();
        gateway.send(answer(request, b"yes"));
        with_timeout(call).await.unwrap().unwrap();
    }
    let by_time = begun.elapsed().div_duration_f64(ACK_WITHIN / 2).ceil() as usize;
    let by_count = REQUESTS / (ACK_AFTER as usize / 2);
    assert!(acks <= by_time + by_count, "{acks} acknowledgements");
    assert!(acks > 0, "nothing was acknowledged");
}

#[tokio::test]
async fn key_updates_work_in_both_directions() {
    let (mut gateway, session, _events) = attached(1).await;
    for payload in [&b"old"[..], b"newer", b"newest"] {
        session.update_key().await.unwrap();
        gateway.command(GatewayCommand::UpdateKey);
        let (call, request) = start_request(&mut gateway, &session, payload).await;
        gateway.send(answer(request, payload));
        assert_eq!(&with_timeout(call).await.unwrap().unwrap().payload[..], payload);
    }
    assert_eq!(session.counts().key_updates, 3);
    assert_eq!(session.counts().losses, 0);
}

#[tokio::test]
async fn error_event_ends_session() {
    let (mut gateway, session, mut events) = attached(1).await;
    let (call, _) = start_request(&mut gateway, &session, b"x").await;
    gateway.send(Message::error_event(&Error::of(ErrorCode::Kicked, "enough")));
    let error = with_timeout(call).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Kicked));
    let end = with_timeout(session.ended()).await;
    assert!(matches!(&end, SessionEnd::Refused(refusal) if refusal.detail == "enough"));
    assert_eq!(with_timeout(events.next()).await, Some(Event::Ended(end)));
    assert_eq!(with_timeout(events.next()).await, None);
    let after = session.call_raw(ECHO, Bytes::new(), None).await.unwrap_err();
    assert_eq!(after.code(), Some(ErrorCode::Kicked));
}

#[tokio::test]
async fn gateway_with_wrong_proof_is_rejected() {
    let gateway = Gateway::start(1).await;
    *gateway.shared.corrupt_proof.lock().unwrap() = true;
    let (sink, _events) = events(16);
    let error =
        with_timeout(Session::attach(&Config::default(), gateway.issue_ticket(), sink)).await.unwrap_err();
    assert!(matches!(error, ClientError::UntrustedServer(_)));
}

#[tokio::test]
async fn oversized_request_is_not_sent() {
    let (_gateway, session, _events) = attached(1).await;
    let error = session.call_raw(ECHO, vec![0; 9_000].into(), None).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge(_)));
}

#[tokio::test]
async fn dropping_last_handle_closes_session() {
    let (_gateway, session, mut events) = attached(1).await;
    drop(session);
    assert_eq!(with_timeout(events.next()).await, Some(Event::Ended(SessionEnd::Closed)));
}
