//! Requests of players about their own accounts, over the sealed connection.

use shardkeep_auth::{
    AccountName,
    srp::{Group, Verifier},
};
use shardkeep_rpc::{
    accounts::{BanRequest, SetSecondFactorRequest, SetVerifierRequest},
    gateway::SessionInfo,
};
use shardkeep_testkit::{Authenticator, Postgres};
use shardkeep_wire::{
    opcode,
    payload::{
        BeginSecondFactor, ChangePassword, ConfirmSecondFactor, ErrorCode, ListSessions, LogOutEverywhere,
        LoggedOutEverywhere, PasswordChanged, RemoveSecondFactor, SecondFactor, SecondFactorBegun,
        SecondFactorConfirmed, SecondFactorRemoved, SessionList, Welcome,
    },
};

use crate::{
    cluster::{Cluster, new_account},
    player::{Outcome, Player},
};

pub(crate) fn password_change(password: &str) -> ChangePassword {
    let name = AccountName::normalise("alice").unwrap();
    let verifier = Verifier::create(Group::Bits2048, &name, password, [9; 16]).unwrap();
    ChangePassword {
        group: 2048,
        salt: verifier.salt().to_vec(),
        verifier: verifier.verifier().expose().clone(),
    }
}

#[tokio::test]
async fn player_lists_and_ends_sessions_and_stays_connected() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    let account = cluster.account("alice", "right").await;
    let mut before = cluster.connect().await;
    before.log_in("alice", "right").await.unwrap();
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    player.worlds_until(|list| list.worlds.first().is_some_and(|world| world.may_enter)).await;

    let session = SessionInfo { account, world: 1, address: "192.0.2.7".into(), ..SessionInfo::default() };
    cluster.gateway.hold(&[session], &[]);
    let list: SessionList = player.request(opcode::LIST_SESSIONS, &ListSessions {}).await.unwrap();
    assert_eq!((list.sessions[0].world_id, list.sessions[0].address.as_str()), (1, "192.0.2.7"));

    // This login displaced the previous one.
    let refused =
        before.request::<LoggedOutEverywhere>(opcode::LOG_OUT_EVERYWHERE, &LogOutEverywhere {}).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Displaced);
    assert_eq!(before.last_error().await, None, "and its connection closes");

    let generation = cluster.show("alice").await.generation;
    let out: LoggedOutEverywhere =
        player.request(opcode::LOG_OUT_EVERYWHERE, &LogOutEverywhere {}).await.unwrap();
    assert_eq!((out.sessions_ended, cluster.show("alice").await.generation), (1, generation + 1));
    // The connection that sent the request stays open.
    player.select(1).await.unwrap();
    assert_eq!(cluster.gateway.admitted().last().unwrap().generation, generation + 1);
}

#[tokio::test]
async fn password_change_applies_at_once_and_keeps_connection() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    cluster.account("alice", "old").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "old").await.unwrap();
    player.worlds_until(|list| list.worlds.first().is_some_and(|world| world.may_enter)).await;
    for nonsense in [
        ChangePassword { group: 1024, ..password_change("new") },
        ChangePassword { salt: vec![0; 16], ..password_change("new") },
        ChangePassword { verifier: Vec::new(), ..password_change("new") },
    ] {
        let refused =
            player.request::<PasswordChanged>(opcode::CHANGE_PASSWORD, &nonsense).await.unwrap_err();
        assert!(matches!(refused.code, ErrorCode::Malformed | ErrorCode::Refused), "{refused:?}");
    }
    let mut elsewhere = cluster.connect().await;
    let challenge = elsewhere.hello("alice").await.unwrap();
    let answer = elsewhere.answer("alice", "old", &challenge);

    let changed: PasswordChanged =
        player.request(opcode::CHANGE_PASSWORD, &password_change("new")).await.unwrap();
    assert_eq!(changed.sessions_ended, 1);
    player.select(1).await.unwrap();
    // A client that proves the old password at the same moment is refused.
    let finished = elsewhere.finish(&challenge, answer).await;
    assert_eq!(finished.unwrap_err().code, ErrorCode::Denied);
    assert_eq!(cluster.connect().await.log_in("alice", "old").await.unwrap_err().code, ErrorCode::Denied);
    cluster.connect().await.log_in("alice", "new").await.unwrap();
}

pub(crate) async fn log_in_with_code(player: &mut Player, code: &str) -> Outcome<Welcome> {
    let refused = player.log_in("alice", "right").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::SecondFactor);
    player.request(opcode::SECOND_FACTOR, &SecondFactor { code: code.into() }).await
}

async fn check_second_factor_is_required(settings: &[&str]) {
    let cluster = Cluster::start_with(settings).await;
    let account = cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    let begun: SecondFactorBegun =
        player.request(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await.unwrap();
    assert!(begun.uri.starts_with("otpauth://totp/Shardkeep:alice?secret="), "{}", begun.uri);
    cluster.connect().await.log_in("alice", "right").await.unwrap();

    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    let authenticator = Authenticator::new(begun.secret.clone());
    let wrong = ConfirmSecondFactor { code: "12345".into() };
    let refused = player.request::<SecondFactorConfirmed>(opcode::CONFIRM_SECOND_FACTOR, &wrong).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::WrongCode);
    let first = authenticator.first();
    let right = ConfirmSecondFactor { code: first.clone() };
    player.request::<SecondFactorConfirmed>(opcode::CONFIRM_SECOND_FACTOR, &right).await.unwrap();
    let again = player.request::<SecondFactorBegun>(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::Refused);
    assert!(cluster.show("alice").await.second_factor);

    // The password alone displaces no session, and a code is valid once.
    let generation = cluster.show("alice").await.generation;
    let refused = log_in_with_code(&mut cluster.connect().await, &first).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WrongCode);
    assert_eq!(cluster.show("alice").await.generation, generation);
    let second = authenticator.second();
    let mut player = cluster.connect().await;
    assert_eq!(log_in_with_code(&mut player, &second).await.unwrap().account_id, account);
    player.worlds_until(|_| true).await;

    // Three wrong codes end the connection. A right code may follow a wrong one.
    let mut attacker = cluster.connect().await;
    assert_eq!(log_in_with_code(&mut attacker, "000000 ").await.unwrap_err().code, ErrorCode::WrongCode);
    for _ in 0..2 {
        let guess = SecondFactor { code: "x".into() };
        let refused = attacker.request::<Welcome>(opcode::SECOND_FACTOR, &guess).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::WrongCode);
    }
    assert_eq!(attacker.last_error().await, None);

    let used = RemoveSecondFactor { code: second };
    let refused =
        player.request::<SecondFactorRemoved>(opcode::REMOVE_SECOND_FACTOR, &used).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WrongCode);
    let log = cluster.log();
    for spelling in [hex::encode(&begun.secret), format!("{:?}", begun.secret)] {
        assert!(!log.contains(spelling.trim_matches(['[', ']'])), "the secret is in the log");
    }
}

#[tokio::test]
async fn second_factor_can_be_removed() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    let early = RemoveSecondFactor { code: "123456".into() };
    let refused =
        player.request::<SecondFactorRemoved>(opcode::REMOVE_SECOND_FACTOR, &early).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Refused, "there is none");
    let begun: SecondFactorBegun =
        player.request(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await.unwrap();
    let authenticator = Authenticator::new(begun.secret);
    let right = ConfirmSecondFactor { code: authenticator.first() };
    player.request::<SecondFactorConfirmed>(opcode::CONFIRM_SECOND_FACTOR, &right).await.unwrap();
    let right = RemoveSecondFactor { code: authenticator.second() };
    player.request::<SecondFactorRemoved>(opcode::REMOVE_SECOND_FACTOR, &right).await.unwrap();
    cluster.connect().await.log_in("alice", "right").await.unwrap();
}

/// Enough wrong codes for these tests.
const CODES: &str = "login.codes={burst=20,every=\"1h\"}";

#[tokio::test]
async fn second_factor_is_required_with_plain_store() {
    check_second_factor_is_required(&[CODES]).await;
}

#[tokio::test]
async fn second_factor_is_required_with_encrypted_store() {
    let key = format!("login.second_factor_secret={}", "5a".repeat(32));
    check_second_factor_is_required(&[CODES, &key]).await;
}

#[tokio::test]
async fn code_guessing_is_throttled_and_two_codes_let_the_owner_in() {
    let cluster = Cluster::start_with(&["login.codes={burst=2,every=\"1h\"}"]).await;
    cluster.account("alice", "right").await;
    let mut accounts = cluster.accounts();
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    let on = SetSecondFactorRequest { name: "alice".into(), on: true };
    let uri = accounts.set_second_factor(on).await.unwrap().into_inner().uri;
    assert!(uri.starts_with("otpauth://totp/"), "{uri}");
    assert_eq!(player.last_error().await, Some(ErrorCode::Displaced), "the password alone was enough before");
    let authenticator = Authenticator::scan(&uri).unwrap();
    for _ in 0..2 {
        let refused = log_in_with_code(&mut cluster.connect().await, "x").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::WrongCode);
    }
    // A single code is refused even if it is right; two codes in a row are accepted on the same connection.
    let two = authenticator.two();
    let mut owner = cluster.connect().await;
    let refused = log_in_with_code(&mut owner, &authenticator.first()).await.unwrap_err();
    assert_eq!((refused.code, refused.retry_after.as_secs()), (ErrorCode::TwoCodes, 3_600));
    let code = SecondFactor { code: two.clone() };
    owner.request::<Welcome>(opcode::SECOND_FACTOR, &code).await.unwrap();
    // Both codes are used up. A client may try two codes in a row once per connection.
    for wrong in [two.as_str(), "123456123456"] {
        let mut attacker = cluster.connect().await;
        assert_eq!(log_in_with_code(&mut attacker, wrong).await.unwrap_err().code, ErrorCode::WrongCode);
        assert_eq!(attacker.last_error().await, None);
    }
    // More guesses: the third code on a connection is the last.
    let mut attacker = cluster.connect().await;
    assert_eq!(log_in_with_code(&mut attacker, "x").await.unwrap_err().code, ErrorCode::TwoCodes);
    for _ in 0..2 {
        let guess = SecondFactor { code: "x".into() };
        let refused = attacker.request::<Welcome>(opcode::SECOND_FACTOR, &guess).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::TwoCodes);
    }
    assert_eq!(attacker.last_error().await, None);
    assert_eq!(cluster.metric("shardkeep_login_throttled_total", "limit=\"codes\"").await, 4.0);
}

#[tokio::test]
async fn operator_removes_the_second_factor_of_a_lost_app() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut accounts = cluster.accounts();
    let on = SetSecondFactorRequest { name: "alice".into(), on: true };
    accounts.set_second_factor(on).await.unwrap();
    assert!(cluster.connect().await.log_in("alice", "right").await.is_err());
    let off = SetSecondFactorRequest { name: "alice".into(), on: false };
    accounts.set_second_factor(off).await.unwrap();
    cluster.connect().await.log_in("alice", "right").await.unwrap();
}

/// Every request about the account is refused after the login ended.
async fn assert_login_is_over(mut player: Player, why: ErrorCode) {
    // The server sends the reason without a request, and answers requests in the same way.
    let begun = player.request::<SecondFactorBegun>(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await;
    assert_eq!(begun.unwrap_err().code, why);
    assert_eq!(player.last_error().await, None);
}

#[tokio::test]
async fn displaced_session_cannot_add_second_factor() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    let settings = [store.as_str()];
    let (one, other) = tokio::join!(Cluster::start_with(&settings), Cluster::start_with(&settings));
    one.account("alice", "stolen").await;
    let log_in = async |password: &str| {
        let mut player = one.connect().await;
        player.log_in("alice", password).await.unwrap();
        player
    };
    let mut thief = log_in("stolen").await;
    let begun: SecondFactorBegun =
        thief.request(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await.unwrap();
    let made = new_account("alice", "new");
    let change =
        SetVerifierRequest { name: made.name, group: made.group, salt: made.salt, verifier: made.verifier };
    // The other replica changes the password, and this one learns of it.
    other.accounts().set_verifier(change).await.unwrap();
    assert_eq!(thief.last_error().await, Some(ErrorCode::Displaced));
    drop(thief);

    // The owner cannot confirm the second factor that the thief began, because the owner has not seen its secret.
    let owner = log_in("new").await;
    let thief = log_in("new").await;
    assert_login_is_over(owner, ErrorCode::Displaced).await;
    let ban = BanRequest { name: "alice".into(), until_ms: u64::MAX, reason: "x".into(), everywhere: false };
    one.accounts().ban(ban).await.unwrap();
    assert_login_is_over(thief, ErrorCode::Banned).await;
    let log = one.log();
    assert!(!log.contains(&hex::encode(&begun.secret)));
    assert!(!one.show("alice").await.second_factor);
}

#[tokio::test]
async fn second_factor_applies_to_logins_in_progress() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    cluster.account("alice", "right").await;
    let mut owner = cluster.connect().await;
    owner.log_in("alice", "right").await.unwrap();
    let begun: SecondFactorBegun =
        owner.request(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await.unwrap();
    let authenticator = Authenticator::new(begun.secret);
    let mut late = cluster.connect().await;
    let challenge = late.hello("alice").await.unwrap();
    let answer = late.answer("alice", "right", &challenge);
    let keys = late.prove(&challenge, answer).await.unwrap();

    let generation = cluster.show("alice").await.generation;
    let code = ConfirmSecondFactor { code: authenticator.first() };
    let confirmed: SecondFactorConfirmed = owner.request(opcode::CONFIRM_SECOND_FACTOR, &code).await.unwrap();
    assert_eq!(confirmed.sessions_ended, 1, "what the password alone had opened");
    assert_eq!(cluster.show("alice").await.generation, generation + 1);
    owner.worlds_until(|list| list.worlds.first().is_some_and(|world| world.may_enter)).await;
    owner.select(1).await.unwrap();
    assert_eq!(cluster.gateway.admitted().last().unwrap().generation, generation + 1);

    assert_eq!(late.finished(keys).await.unwrap_err().code, ErrorCode::SecondFactor);
    let code = SecondFactor { code: authenticator.second() };
    late.request::<Welcome>(opcode::SECOND_FACTOR, &code).await.unwrap();
}
