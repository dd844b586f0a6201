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
    gateway::{ECHO, answer, asked, attached},
    server::{Do, Gateway},
    soon,
};

async fn expect_resumed(events: &mut Events, continued: bool) {
    assert_eq!(soon(events.next()).await, Some(Event::Lost));
    assert_eq!(soon(events.next()).await, Some(Event::Resumed { continued }));
}

fn line(text: &str) -> Message {
    Message::event(opcode::ANNOUNCEMENT, &Announcement { text: text.into() })
}

#[tokio::test]
async fn a_reply_lost_with_the_connection_comes_again() {
    let (mut gateway, session, mut events) = attached(1).await;
    let (call, request) = asked(&mut gateway, &session, b"once").await;
    session.cut().await.unwrap();
    gateway.send(answer(request, b"done"));
    assert_eq!(&soon(call).await.unwrap().unwrap().payload[..], b"done");
    expect_resumed(&mut events, true).await;
    gateway.send(line("after"));
    assert_eq!(soon(events.next()).await, Some(Event::Message(line("after"))));
    assert_eq!(session.counts().resumes, 1);
}

#[tokio::test]
async fn every_message_arrives_once_however_often_the_line_breaks() {
    let (mut gateway, session, mut events) = attached(1).await;
    let mut calls = Vec::new();
    for n in 0..30u8 {
        let session = session.clone();
        calls.push(tokio::spawn(async move { session.call_raw(ECHO, vec![n].into(), None).await }));
        match n % 10 {
            3 => gateway.order(Do::Cut),
            6 => gateway.order(Do::Ack),
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
        assert_eq!(soon(call).await.unwrap().unwrap().payload[..], [n as u8]);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<u8>>());
    assert_eq!(session.counts().late_replies, 0);
    (0..3).for_each(|n| gateway.send(line(&n.to_string())));
    let mut lines = Vec::new();
    while lines.len() < 3 {
        if let Some(Event::Message(message)) = soon(events.next()).await {
            lines.push(message);
        }
    }
    assert_eq!(lines, ["0", "1", "2"].map(line));
}

#[tokio::test]
async fn a_lost_log_repeats_what_has_no_reply() {
    let (mut gateway, session, mut events) = attached(2).await;
    let (done, request) = asked(&mut gateway, &session, b"done").await;
    gateway.send(answer(request, b"ok"));
    soon(done).await.unwrap().unwrap();
    let (open, request) = asked(&mut gateway, &session, b"open").await;

    *gateway.shared.forget.lock().unwrap() = true;
    gateway.order(Do::Cut);
    expect_resumed(&mut events, false).await;
    let again = gateway.expect(ECHO).await;
    assert_eq!((again.head.request(), &again.payload[..]), (Some(request), &b"open"[..]));
    gateway.send(answer(request, b"ok"));
    soon(open).await.unwrap().unwrap();
    let counts = session.counts();
    assert_eq!((counts.fresh_resumes, counts.repeated, counts.replayed), (1, 1, 0));

    // The new keys hold, and both sides count alike: another loss is an ordinary one.
    gateway.order(Do::Cut);
    expect_resumed(&mut events, true).await;
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let (mut gateway, session, mut events) = attached(2).await;
    let there = gateway.addresses[1].to_string();
    gateway.send(Message::event(opcode::REDIRECT, &Redirect { gateway: there.clone() }));
    // The first gateway lets go of the session with the connection.
    expect_resumed(&mut events, true).await;
    assert_eq!(soon(gateway.resumed.recv()).await, Some((1, 0)));
    assert_eq!(session.gateway(), there);
    let call = tokio::spawn({
        let session = session.clone();
        async move { session.call_raw(ECHO, Bytes::from_static(b"x"), None).await }
    });
    let (at, message) = gateway.next().await;
    assert_eq!(at, 1);
    gateway.send(answer(message.head.request().unwrap(), b"y"));
    soon(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn another_gateway_takes_over() {
    let (mut gateway, session, mut events) = attached(2).await;
    *gateway.shared.refuse.lock().unwrap() = vec![ErrorCode::Draining];
    gateway.order(Do::Cut);
    expect_resumed(&mut events, true).await;
    assert_eq!(soon(gateway.resumed.recv()).await, Some((1, 0)));
    assert_eq!(session.counts().failed_resumes, 1);
}

#[tokio::test]
async fn a_session_that_nobody_knows_is_gone() {
    let (gateway, session, mut events) = attached(2).await;
    *gateway.shared.refuse.lock().unwrap() = vec![ErrorCode::TicketInvalid; 4];
    gateway.order(Do::Cut);
    assert_eq!(soon(session.ended()).await, SessionEnd::Gone);
    assert_eq!(soon(events.next()).await, Some(Event::Lost));
    assert_eq!(soon(events.next()).await, Some(Event::Ended(SessionEnd::Gone)));
}

#[tokio::test]
async fn a_displaced_session_does_not_come_back() {
    let (gateway, session, _events) = attached(1).await;
    *gateway.shared.refuse.lock().unwrap() = vec![ErrorCode::Displaced];
    gateway.order(Do::Cut);
    assert!(
        matches!(soon(session.ended()).await, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::Displaced)
    );
}

#[tokio::test]
async fn a_logout_is_said_again() {
    let (mut gateway, session, mut events) = attached(1).await;
    let leaving = tokio::spawn({
        let session = session.clone();
        async move { session.logout().await }
    });
    gateway.expect(opcode::LOGOUT).await;
    gateway.order(Do::Cut);
    expect_resumed(&mut events, true).await;
    gateway.expect(opcode::LOGOUT).await;
    gateway.send(Message::error_event(&Error::of(ErrorCode::LoggedOut, "")));
    let end = soon(leaving).await.unwrap();
    assert!(matches!(end, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::LoggedOut));
}

#[tokio::test]
async fn a_lane_that_is_closed_is_passed_over() {
    let gateway = Gateway::start(1).await;
    let (sink, mut events) = events(64);
    let mut config = Config { lanes: vec![Lane::Quic, Lane::Tcp], ..Config::default() };
    config.timing.connect = Duration::from_millis(100);
    let session = soon(Session::attach(&config, gateway.admit(), sink)).await.unwrap();
    assert_eq!(session.lane(), Lane::Tcp);
    session.cut().await.unwrap();
    expect_resumed(&mut events, true).await;
    assert_eq!(session.lane(), Lane::Tcp);
}
