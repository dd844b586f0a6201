//! Lost connections, lost gateways, lost logs.

use std::time::Duration;

use bytes::Bytes;
use shardkeep_client::{
    Config, SessionEnd,
    lanes::Lane,
    session::{Event, Events, Session, events},
};
use shardkeep_wire::{
    Message, opcode,
    payload::{Announcement, Error, ErrorCode, Redirect},
};

use super::{
    gateway::{ECHO, answer, attached, start_request},
    server::{Gateway, GatewayCommand},
    with_timeout,
};

async fn expect_resumed(events: &mut Events, continued: bool) {
    assert_eq!(with_timeout(events.next()).await, Some(Event::Lost));
    assert_eq!(with_timeout(events.next()).await, Some(Event::Resumed { continued }));
}

fn line(text: &str) -> Message {
    Message::event(opcode::ANNOUNCEMENT, &Announcement { text: text.into() })
}

#[tokio::test]
async fn reply_lost_with_connection_is_replayed() {
    let (mut gateway, session, mut events) = attached(1).await;
    let (call, request) = start_request(&mut gateway, &session, b"once").await;
    session.drop_connection().await.unwrap();
    gateway.send(answer(request, b"done"));
    assert_eq!(&with_timeout(call).await.unwrap().unwrap().payload[..], b"done");
    expect_resumed(&mut events, true).await;
    gateway.send(line("after"));
    assert_eq!(with_timeout(events.next()).await, Some(Event::Message(line("after"))));
    assert_eq!(session.counts().resumes, 1);
}

#[tokio::test]
async fn messages_arrive_once_across_repeated_disconnects() {
    let (mut gateway, session, mut events) = attached(1).await;
    let mut calls = Vec::new();
    for n in 0..30u8 {
        let session = session.clone();
        calls.push(tokio::spawn(async move { session.call_raw(ECHO, vec![n].into(), None).await }));
        match n % 10 {
            3 => gateway.command(GatewayCommand::DropConnection),
            6 => gateway.command(GatewayCommand::Ack),
            _ => {}
        }
    }
    let mut seen = Vec::new();
    for _ in 0..30 {
        let message = gateway.expect(ECHO).await;
        seen.push(message.payload[0]);
        let request = message.head.request().unwrap();
        gateway.send(Message::new(ECHO, shardkeep_wire::Head::Reply(request), message.payload));
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(with_timeout(call).await.unwrap().unwrap().payload[..], [n as u8]);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<u8>>());
    assert_eq!(session.counts().late_replies, 0);
    (0..3).for_each(|n| gateway.send(line(&n.to_string())));
    let mut lines = Vec::new();
    while lines.len() < 3 {
        if let Some(Event::Message(message)) = with_timeout(events.next()).await {
            lines.push(message);
        }
    }
    assert_eq!(lines, ["0", "1", "2"].map(line));
}

#[tokio::test]
async fn lost_log_resends_unanswered_requests() {
    let (mut gateway, session, mut events) = attached(2).await;
    let (done, request) = start_request(&mut gateway, &session, b"done").await;
    gateway.send(answer(request, b"ok"));
    with_timeout(done).await.unwrap().unwrap();
    let (open, request) = start_request(&mut gateway, &session, b"open").await;

    *gateway.shared.lose_log.lock().unwrap() = true;
    gateway.command(GatewayCommand::DropConnection);
    expect_resumed(&mut events, false).await;
    let again = gateway.expect(ECHO).await;
    assert_eq!((again.head.request(), &again.payload[..]), (Some(request), &b"open"[..]));
    gateway.send(answer(request, b"ok"));
    with_timeout(open).await.unwrap().unwrap();
    let counts = session.counts();
    assert_eq!((counts.fresh_resumes, counts.repeated, counts.replayed), (1, 1, 0));

    // The new keys hold, and both sides count alike: another loss is an ordinary one.
    gateway.command(GatewayCommand::DropConnection);
    expect_resumed(&mut events, true).await;
}

#[tokio::test]
async fn redirect_resumes_session_at_named_gateway() {
    let (mut gateway, session, mut events) = attached(2).await;
    let there = gateway.addresses[1].to_string();
    gateway.send(Message::event(opcode::REDIRECT, &Redirect { gateway: there.clone(), lanes: Vec::new() }));
    // The first gateway lets go of the session with the connection.
    expect_resumed(&mut events, true).await;
    assert_eq!(with_timeout(gateway.resumed.recv()).await, Some((1, 0)));
    assert_eq!(session.gateway(), there);
    let call = tokio::spawn({
        let session = session.clone();
        async move { session.call_raw(ECHO, Bytes::from_static(b"x"), None).await }
    });
    let (at, message) = gateway.next().await;
    assert_eq!(at, 1);
    gateway.send(answer(message.head.request().unwrap(), b"y"));
    with_timeout(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_gateway_makes_session_resume_on_another() {
    let (mut gateway, session, mut events) = attached(2).await;
    *gateway.shared.refuse_with.lock().unwrap() = vec![ErrorCode::Draining];
    gateway.command(GatewayCommand::DropConnection);
    expect_resumed(&mut events, true).await;
    assert_eq!(with_timeout(gateway.resumed.recv()).await, Some((1, 0)));
    assert_eq!(session.counts().failed_resumes, 1);
}

#[tokio::test]
async fn session_unknown_to_every_gateway_ends() {
    let (gateway, session, mut events) = attached(2).await;
    *gateway.shared.refuse_with.lock().unwrap() = vec![ErrorCode::TicketInvalid; 4];
    gateway.command(GatewayCommand::DropConnection);
    assert_eq!(with_timeout(session.ended()).await, SessionEnd::Gone);
    assert_eq!(with_timeout(events.next()).await, Some(Event::Lost));
    assert_eq!(with_timeout(events.next()).await, Some(Event::Ended(SessionEnd::Gone)));
}

#[tokio::test]
async fn displaced_session_does_not_resume() {
    let (gateway, session, _events) = attached(1).await;
    *gateway.shared.refuse_with.lock().unwrap() = vec![ErrorCode::Displaced];
    gateway.command(GatewayCommand::DropConnection);
    assert!(
        matches!(with_timeout(session.ended()).await, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::Displaced)
    );
}

#[tokio::test]
async fn logout_is_resent_after_disconnect() {
    let (mut gateway, session, mut events) = attached(1).await;
    let leaving = tokio::spawn({
        let session = session.clone();
        async move { session.logout().await }
    });
    gateway.expect(opcode::LOGOUT).await;
    gateway.command(GatewayCommand::DropConnection);
    expect_resumed(&mut events, true).await;
    gateway.expect(opcode::LOGOUT).await;
    gateway.send(Message::error_event(&Error::of(ErrorCode::LoggedOut, "")));
    let end = with_timeout(leaving).await.unwrap();
    assert!(matches!(end, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::LoggedOut));
}

#[tokio::test]
async fn closed_lane_falls_back_to_next_lane() {
    let gateway = Gateway::start(1).await;
    let (sink, mut events) = events(64);
    let mut config = Config { lanes: vec![Lane::Quic, Lane::Tcp], ..Config::default() };
    config.timing.connect = Duration::from_millis(100);
    let session = with_timeout(Session::attach(&config, gateway.issue_ticket(), sink)).await.unwrap();
    assert_eq!(session.lane(), Lane::Tcp);
    session.drop_connection().await.unwrap();
    expect_resumed(&mut events, true).await;
    assert_eq!(session.lane(), Lane::Tcp);
}
