//! The rows of the opcode table, in the order of section 13 of `docs/protocol.md`. A test compares both.

use super::{Bucket, Phase, Phases, Rate, Route, Rule, Sender};
use crate::message::Kind;
use shardkeep_types::BackendKind;

macro_rules! opcodes {
    ($($constant:ident = $opcode:literal, $name:literal, $line:expr;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: u16 = $opcode;)*

        /// Rows, sorted by opcode.
        pub static RULES: &[Rule] = &[$(Rule { opcode: $opcode, name: $name, ..$line }),*];
    };
}

opcodes! {
    ERROR = 0x0001, "Error", server_message(Kind::Event, Route::Transport);
    ACK = 0x0002, "Ack", control(SESSION, 16, rate(Bucket::Ack, 100, 200));
    KEY_UPDATE = 0x0003, "KeyUpdate", control(SEALED, 0, rate(Bucket::KeyUpdate, 1, 32));
    PING = 0x0004, "Ping", control(SEALED, 16, rate(Bucket::Ping, 5, 10));
    PONG = 0x0005, "Pong", control(SEALED, 16, rate(Bucket::Pong, 5, 10));

    HELLO = 0x0100, "Hello", request(Phases::of(&[Phase::LoginNew]), 1_600, None, Route::Login);
    PROOF = 0x0101, "Proof", request(Phases::of(&[Phase::LoginChallenged]), 1_200, None, Route::Login);
    FINISHED = 0x0102, "Finished", request(Phases::of(&[Phase::LoginVerified]), 64, None, Route::Login);
    PUZZLE = 0x0103, "Puzzle", server_message(Kind::Reply, Route::Login);
    WORLD_LIST = 0x0110, "WorldList", server_message(Kind::Event, Route::Login);
    SELECT_WORLD = 0x0111, "SelectWorld",
        request(Phases::of(&[Phase::LoginWelcome]), 16, rate(Bucket::Login, 2, 5), Route::Login);
    LIST_SESSIONS = 0x0112, "ListSessions", account_request(0);
    LOG_OUT_EVERYWHERE = 0x0113, "LogOutEverywhere", account_request(0);
    CHANGE_PASSWORD = 0x0114, "ChangePassword", account_request(600);
    BEGIN_SECOND_FACTOR = 0x0115, "BeginSecondFactor", account_request(0);
    CONFIRM_SECOND_FACTOR = 0x0116, "ConfirmSecondFactor", account_request(32);
    REMOVE_SECOND_FACTOR = 0x0117, "RemoveSecondFactor", account_request(32);
    SECOND_FACTOR = 0x0120, "SecondFactor",
        request(Phases::of(&[Phase::LoginCode]), 32, rate(Bucket::Login, 2, 5), Route::Login);
    REGISTER = 0x0121, "Register",
        request(Phases::of(&[Phase::LoginNew]), 1_024, rate(Bucket::Login, 2, 5), Route::Login);
    GET_RELEASE = 0x0180, "GetRelease", request(UPDATE, 0, None, Route::Login);
    GET_PIECE = 0x0181, "GetPiece", request(UPDATE, 64, None, Route::Login);

    ATTACH = 0x0200, "Attach", request(Phases::of(&[Phase::GatewayNew]), 256, None, Route::Gateway);
    CONFIRM = 0x0201, "Confirm", request(Phases::of(&[Phase::GatewayAttached]), 16, None, Route::Gateway);
    RESUME = 0x0202, "Resume", request(Phases::of(&[Phase::GatewayNew]), 256, None, Route::Gateway);
    REDIRECT = 0x0203, "Redirect", server_message(Kind::Event, Route::Gateway);
    LOGOUT = 0x0204, "Logout", request(SESSION, 0, rate(Bucket::Logout, 1, 2), Route::Gateway);

    MOVE = 0x1001, "Move",
        Rule { kind: Kind::State, ..request(SESSION, 9, rate(Bucket::Move, 30, 60), ZONE) };
    GET_INVENTORY = 0x1010, "GetInventory", zone_request();
    INVENTORY_CHANGED = 0x1011, "InventoryChanged", server_message(Kind::Event, ZONE);
    PICK_UP = 0x1012, "PickUp", zone_request();
    DROP = 0x1013, "Drop", zone_request();
    ATTACK = 0x1020, "Attack", zone_request();
    VITALS = 0x1021, "Vitals", server_message(Kind::Event, ZONE);
    TRADE_INVITE = 0x1030, "TradeInvite", zone_request();
    TRADE_CHANGED = 0x1031, "TradeChanged", server_message(Kind::Event, ZONE);
    TRADE_ANSWER = 0x1032, "TradeAnswer", zone_request();
    TRADE_OFFER = 0x1033, "TradeOffer", zone_request();
    TRADE_CONFIRM = 0x1034, "TradeConfirm", zone_request();
    TRADE_CANCEL = 0x1035, "TradeCancel", zone_request();
    PLACED = 0x1040, "Placed", server_message(Kind::Event, ZONE);
    AVATAR = 0x1080, "Avatar", server_message(Kind::State, ZONE);
    CELL = 0x1081, "Cell", server_message(Kind::State, ZONE);

    SPEAK = 0x2000, "Speak", request(SESSION, 1_100, rate(Bucket::Chat, 10, 20), CHAT);
    CHAT_MESSAGE = 0x2001, "ChatMessage", server_message(Kind::Event, CHAT);

    LIST_CHARACTERS = 0x3000, "ListCharacters", world_request();
    CREATE_CHARACTER = 0x3001, "CreateCharacter", world_request();
    ENTER = 0x3002, "Enter", world_request();
    LEAVE = 0x3003, "Leave", world_request();
    QUEUE_POSITION = 0x3010, "QueuePosition", server_message(Kind::Event, WORLD);
    ANNOUNCEMENT = 0x3011, "Announcement", server_message(Kind::Event, WORLD);
}

const SESSION: Phases = Phases::of(&[Phase::Session]);
const UPDATE: Phases = Phases::of(&[Phase::Update]);
const SEALED: Phases = Phases::of(&[Phase::LoginCode, Phase::LoginWelcome, Phase::Session]);
const WORLD: Route = Route::Backend(BackendKind::WORLD);
const ZONE: Route = Route::Backend(BackendKind::ZONE);
const CHAT: Route = Route::Backend(BackendKind::CHAT);

const fn request(phases: Phases, max_payload: usize, rate: Option<Rate>, route: Route) -> Rule {
    Rule {
        opcode: 0,
        name: "",
        kind: Kind::Request,
        sender: Sender::Client,
        phases,
        max_payload,
        rate,
        route,
    }
}

/// Requests about the account share the rate of `SelectWorld`.
const fn account_request(max_payload: usize) -> Rule {
    request(Phases::of(&[Phase::LoginWelcome]), max_payload, rate(Bucket::Login, 2, 5), Route::Login)
}

/// Requests to the zone: 0x1002–0x107F share one rate.
const fn zone_request() -> Rule {
    request(SESSION, 1_024, rate(Bucket::Zone, 40, 80), ZONE)
}

/// Requests to the world: 0x3000–0x3FFF share one rate.
const fn world_request() -> Rule {
    request(SESSION, 256, rate(Bucket::World, 10, 20), WORLD)
}

const fn control(phases: Phases, max_payload: usize, rate: Option<Rate>) -> Rule {
    let rule = request(phases, max_payload, rate, Route::Transport);
    Rule { kind: Kind::Event, sender: Sender::Both, ..rule }
}

/// Sent by the server only; `route` names the server's part that sends it.
const fn server_message(kind: Kind, route: Route) -> Rule {
    Rule { kind, sender: Sender::Server, ..request(Phases::of(&[]), 0, None, route) }
}

const fn rate(bucket: Bucket, per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { bucket, per_second, burst })
}
