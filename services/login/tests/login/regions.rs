//! Several regions with one account for each player: real login processes, one of them with the centre.

use shardkeep_rpc::accounts::{
    Account, BanRequest, InviteRequest, SetSecondFactorRequest, SetVerifierRequest, UnbanRequest,
};
use shardkeep_testkit::{Authenticator, Postgres, wait_until};
use shardkeep_wire::{
    opcode,
    payload::{
        BeginSecondFactor, ConfirmSecondFactor, ErrorCode, PasswordChanged, RemoveSecondFactor,
        SecondFactorBegun, SecondFactorConfirmed, SecondFactorRemoved, Welcome,
    },
};
use tonic::Code;

use crate::{
    cluster::{Cluster, new_account},
    own_account::{log_in_with_code, password_change},
    player::{Outcome, Player},
    registration::{region, register},
    revocations::Follower,
};

const EXPONENTIATIONS: &str = "shardkeep_login_exponentiations_total";
const HELLOS: &str = "shardkeep_login_central_hellos_total";
const CALLS: &str = "shardkeep_login_central_calls_total";
const ACTIVATIONS: &str = "shardkeep_login_central_activations_total";
const OVERFLOWED: &str = "shardkeep_login_central_lookups_overflowed_total";

/// Settings of both regions. On a busy machine a look-up may be late, and a right password then looks wrong.
const COMMON: [&str; 4] = [
    "login.central.wait=200ms",
    "login.limits.failures={burst=200,every=\"1s\"}",
    "login.limits.failures_of_address={burst=200,every=\"1s\"}",
    "login.limits.failures_of_account={burst=200,every=\"1s\"}",
];

async fn home_region(settings: &[&str]) -> Cluster {
    let own = ["login.central.region=eu", "login.central.store=sqlite:{folder}/central.db"];
    Cluster::start_with(&[&COMMON[..], &own, settings].concat()).await
}

async fn other_region(home_region: &Cluster, settings: &[&str]) -> Cluster {
    let at = format!("login.central.servers={}", home_region.grpc_address());
    let own = ["login.central.region=us", at.as_str()];
    home_region.start_region(&[&COMMON[..], &own, settings].concat()).await
}

/// Retries for a while, because the centre may answer one `Hello` too late, or its changes may arrive after a login.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    wait_until(what, async || Ok(attempt().await)).await.unwrap()
}

async fn logged_in(cluster: &Cluster, name: &str, password: &str) -> (Player, Welcome) {
    eventually("logged in", || async {
        let mut player = cluster.connect().await;
        let welcome = player.log_in(name, password).await.ok()?;
        Some((player, welcome))
    })
    .await
}

async fn refused_with(cluster: &Cluster, password: &str, code: ErrorCode) {
    eventually(&format!("{code:?}"), || async {
        let refused = cluster.connect().await.log_in("alice", password).await.err()?;
        (refused.code == code).then_some(())
    })
    .await;
}

fn active_in(account: &Account) -> Vec<&str> {
    account.active_in.iter().map(|it| it.region.as_str()).collect()
}

fn banned(everywhere: bool) -> BanRequest {
    BanRequest { name: "alice".into(), until_ms: u64::MAX, reason: "cheats".into(), everywhere }
}

#[tokio::test]
async fn account_is_activated_by_password_and_not_by_name() {
    let eu = home_region(&[]).await;
    let mut us = other_region(&eu, &[]).await;
    let id = eu.account("alice", "right").await;
    assert_eq!(active_in(&eu.show("alice").await), ["eu"]);

    // A `Hello` or a wrong password does not copy the account.
    us.connect().await.hello("alice").await.unwrap();
    us.connect().await.log_in("alice", "wrong").await.unwrap_err();
    let seen = us.show("alice").await;
    assert_eq!((seen.id, seen.generation, active_in(&seen)), (id, 0, vec!["eu"]));
    assert_eq!(us.metric(ACTIVATIONS, "").await, 0.0);

    let (_, welcome) = logged_in(&us, "alice", "right").await;
    assert_eq!(welcome.account_id, id);
    let seen = us.show("alice").await;
    assert_eq!((seen.generation, active_in(&seen)), (2, vec!["eu", "us"]));
    assert_eq!((us.metric(ACTIVATIONS, "").await, eu.show("alice").await.generation), (1.0, 1));

    // An account here, an account at the centre, and no account: the work and the time of the answer are the same.
    eu.account("bob", "right").await;
    let mut salts = Vec::new();
    for (name, calls) in [("alice", 0.0), ("bob", 1.0), ("nobody", 1.0)] {
        let before = [
            us.metric(EXPONENTIATIONS, "").await,
            us.metric(HELLOS, "").await,
            us.metric(CALLS, "find").await,
        ];
        let mut player = us.connect().await;
        let challenge = player.hello(name).await.unwrap();
        let answer = player.answer(name, "wrong", &challenge);
        assert_eq!(player.prove(&challenge, answer).await.err().unwrap().code, ErrorCode::Denied);
        let after = [
            us.metric(EXPONENTIATIONS, "").await,
            us.metric(HELLOS, "").await,
            us.metric(CALLS, "find").await,
        ];
        assert_eq!(
            [after[0] - before[0], after[1] - before[1], after[2] - before[2]],
            [3.0, 1.0, calls],
            "{name}"
        );
        salts.push((challenge.group, challenge.salt.len()));
        let salt = || async { us.connect().await.hello(name).await.unwrap().salt };
        eventually("its salt stays", || async { (salt().await == salt().await).then_some(()) }).await;
    }
    assert!(salts.iter().all(|shape| *shape == salts[0]), "{salts:?}");

    // An account that is active here logs in without the centre, and the region starts without it.
    eu.signal("STOP").await;
    us.restart().await;
    assert!(us.is_ready().await);
    us.connect().await.log_in("alice", "right").await.unwrap();
    eu.signal("CONT").await;

    let created = new_account("alice", "right");
    for log in [eu.log(), us.log()] {
        for secret in [&created.verifier[..16], &created.salt[..]] {
            for spelling in [hex::encode(secret), format!("{secret:?}")] {
                assert!(
                    !log.to_lowercase().contains(spelling.trim_matches(['[', ']'])),
                    "a secret is in a log"
                );
            }
        }
    }
}

#[tokio::test]
async fn region_keeps_working_while_central_store_is_down() {
    let eu = home_region(&[]).await;
    let us = other_region(&eu, &["login.central.lookups=1", "login.registration=token"]).await;
    let id = us.account("alice", "old").await;
    eu.account("bob", "right").await;
    let (mut player, _) = logged_in(&us, "alice", "old").await;
    let key = region(&us).await;
    let invited = async || {
        let invite = InviteRequest { uses: 1, lifetime_ms: 3_600_000 };
        us.accounts().invite(invite).await.unwrap().into_inner().token
    };
    let lost = invited().await;

    eu.signal("STOP").await;
    // The centre may still create this account later.
    let unheard = register(&mut us.connect().await, &key, "gina", "mine", &lost).await.unwrap_err();
    assert_eq!(unheard.code, ErrorCode::Unavailable);
    us.connect().await.log_in("alice", "old").await.unwrap();
    let (mut last, _) = logged_in(&us, "alice", "old").await;
    // An account that only the centre knows looks unknown.
    let refused = us.connect().await.log_in("bob", "right").await.unwrap_err();
    assert_eq!((refused.code, refused.detail.as_str()), (ErrorCode::Denied, "wrong account or password"));
    // A look-up above the bound is not waited for.
    eventually("too many names at a time", || async {
        let hello = || async { us.connect().await.hello("carol").await.unwrap() };
        tokio::join!(hello(), hello(), hello());
        (us.metric(OVERFLOWED, "").await > 0.0).then_some(())
    })
    .await;

    let refused: Outcome<PasswordChanged> =
        last.request(opcode::CHANGE_PASSWORD, &password_change("new")).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unavailable);
    let refused = us.accounts().create(new_account("dora", "right")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("central account store"), "{refused}");
    let seen = us.show("alice").await;
    assert!(seen.central_unavailable && seen.active_in.is_empty() && us.is_ready().await);
    us.connect().await.log_in("alice", "old").await.unwrap();

    // The centre continues. Earlier requests may or may not have reached it, and repeating them settles that.
    eu.signal("CONT").await;
    logged_in(&us, "bob", "right").await;
    eventually("the password is changed", || async {
        let changed = match us.connect().await.log_in("alice", "new").await {
            Ok(_) => return Some(()),
            Err(_) => {
                let mut again = us.connect().await;
                again.log_in("alice", "old").await.ok()?;
                again.request::<PasswordChanged>(opcode::CHANGE_PASSWORD, &password_change("new")).await
            }
        };
        changed.ok().map(drop)
    })
    .await;
    assert_eq!(logged_in(&us, "alice", "new").await.1.account_id, id);
    refused_with(&us, "old", ErrorCode::Denied).await;
    let gone = player.request::<PasswordChanged>(opcode::CHANGE_PASSWORD, &password_change("x")).await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::Displaced, "of a session that is over");
    eventually("dora is there", || async {
        match us.accounts().create(new_account("dora", "right")).await {
            Ok(_) => Some(()),
            Err(status) => (status.code() == Code::AlreadyExists).then_some(()),
        }
    })
    .await;

    // An invitation belongs to one region, and a name to all.
    let second = register(&mut us.connect().await, &key, "hans", "mine", &lost).await.unwrap_err();
    assert_eq!(second.detail, "this invitation is not, or no longer, good", "no two accounts for one");
    let token = invited().await;
    let taken = register(&mut us.connect().await, &key, "bob", "mine", &token).await.unwrap_err();
    assert_eq!(taken.detail, "this name is taken");
    let new = register(&mut us.connect().await, &key, "emil", "mine", &token).await.unwrap();
    assert_eq!(logged_in(&eu, "emil", "mine").await.1.account_id, new);
    let used = register(&mut us.connect().await, &key, "fritz", "mine", &token).await.unwrap_err();
    assert_eq!(used.code, ErrorCode::Refused);
}

#[tokio::test]
async fn account_changes_apply_in_all_regions() {
    let key = |byte: &str| format!("login.second_factor_secret={}", byte.repeat(32));
    let (here, there) = (key("5a"), key("a5"));
    let eu = home_region(&[&here]).await;
    let mut us = other_region(&eu, &[&there]).await;
    let id = eu.account("alice", "old").await;
    let (mut player, _) = logged_in(&eu, "alice", "old").await;
    logged_in(&us, "alice", "old").await;

    let mut gateway = Follower::new(&us).await;
    player.request::<PasswordChanged>(opcode::CHANGE_PASSWORD, &password_change("new")).await.unwrap();
    loop {
        // The gateway may still be told of the previous login.
        let received = gateway.received(id).await;
        if (received.below_generation, received.code) == (3, ErrorCode::Kicked as u32) {
            break;
        }
    }
    refused_with(&us, "old", ErrorCode::Denied).await;
    logged_in(&us, "alice", "new").await;

    // The region is down during the change, and learns of it when it starts again.
    us.kill().await;
    let (mut player, _) = logged_in(&eu, "alice", "new").await;
    player.request::<PasswordChanged>(opcode::CHANGE_PASSWORD, &password_change("newer")).await.unwrap();
    us.restart().await;
    logged_in(&us, "alice", "newer").await;
    refused_with(&us, "new", ErrorCode::Denied).await;

    // A ban in a region applies to that region, and a ban at the centre to all.
    us.accounts().ban(banned(false)).await.unwrap();
    refused_with(&us, "newer", ErrorCode::Banned).await;
    eu.connect().await.log_in("alice", "newer").await.unwrap();
    us.accounts()
        .unban(UnbanRequest { name: "alice".into(), everywhere: false, reason: "appeal".into() })
        .await
        .unwrap();
    us.accounts().ban(banned(true)).await.unwrap();
    refused_with(&eu, "newer", ErrorCode::Banned).await;
    refused_with(&us, "newer", ErrorCode::Banned).await;
    assert_eq!(eu.show("alice").await.ban_everywhere_reason, "cheats");
    eu.accounts()
        .unban(UnbanRequest { name: "alice".into(), everywhere: true, reason: "appeal".into() })
        .await
        .unwrap();
    logged_in(&us, "alice", "newer").await;

    // An operator's change also works from a region in which the account is not active.
    let change = new_account("alice", "given");
    let (name, group, salt, verifier) = (change.name, change.group, change.salt, change.verifier);
    us.accounts().set_verifier(SetVerifierRequest { name, group, salt, verifier }).await.unwrap();
    logged_in(&eu, "alice", "given").await;
    eu.account("bob", "right").await;
    let only_here = BanRequest { name: "bob".into(), ..banned(false) };
    let refused = us.accounts().ban(only_here.clone()).await.unwrap_err();
    assert!(refused.code() == Code::NotFound && refused.message().contains("--everywhere"), "{refused}");
    us.accounts().ban(BanRequest { everywhere: true, ..only_here }).await.unwrap();
    let refused = us.connect().await.log_in("bob", "right").await.unwrap_err();
    assert!(matches!(refused.code, ErrorCode::Banned | ErrorCode::Denied));
    assert_eq!(us.show("bob").await.generation, 0, "and does not become so");
}

#[tokio::test]
async fn second_factor_is_required_in_every_region() {
    let key = |byte: &str| format!("login.second_factor_secret={}", byte.repeat(32));
    let (here, there) = (key("5a"), key("a5"));
    let eu = home_region(&[&here]).await;
    let us = other_region(&eu, &[&there]).await;
    eu.account("alice", "right").await;
    logged_in(&us, "alice", "right").await;
    let (mut player, _) = logged_in(&eu, "alice", "right").await;
    let begun: SecondFactorBegun =
        player.request(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await.unwrap();
    let authenticator = Authenticator::new(begun.secret);
    let (mut elsewhere, _) = logged_in(&us, "alice", "right").await;
    let code = ConfirmSecondFactor { code: authenticator.first() };
    player.request::<SecondFactorConfirmed>(opcode::CONFIRM_SECOND_FACTOR, &code).await.unwrap();
    assert_eq!(elsewhere.last_error().await, Some(ErrorCode::Displaced), "with the password alone");
    let again = RemoveSecondFactor { code: authenticator.first() };
    let refused = player.request::<SecondFactorRemoved>(opcode::REMOVE_SECOND_FACTOR, &again).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::WrongCode, "used, and the connection goes on");

    refused_with(&us, "right", ErrorCode::SecondFactor).await;
    let mut away = us.connect().await;
    log_in_with_code(&mut away, &authenticator.first()).await.unwrap();
    let code = RemoveSecondFactor { code: authenticator.second() };
    away.request::<SecondFactorRemoved>(opcode::REMOVE_SECOND_FACTOR, &code).await.unwrap();
    logged_in(&us, "alice", "right").await;
    logged_in(&eu, "alice", "right").await;
    assert!(!eu.show("alice").await.second_factor);

    // An operator sets the factor before the region knows the account. It arrives with the account.
    eu.account("bob", "right").await;
    let on = SetSecondFactorRequest { name: "bob".into(), on: true };
    us.accounts().set_second_factor(on).await.unwrap();
    eventually("a code is asked for", || async {
        let refused = us.connect().await.log_in("bob", "right").await.unwrap_err();
        (refused.code == ErrorCode::SecondFactor).then_some(())
    })
    .await;
}

#[tokio::test]
async fn central_store_fails_over_to_another_replica() {
    let server = Postgres::start().await;
    let (store, central) =
        (format!("login.store={}", server.url()), format!("login.central.store={}", server.url()));
    let own = [store.as_str(), central.as_str(), "login.central.region=eu"];
    let settings = [&COMMON[..], &own].concat();
    let mut one = Cluster::start_with(&settings).await;
    let other = one.start_region(&settings).await;
    let at = format!("login.central.servers={},{}", one.grpc_address(), other.grpc_address());
    let own = ["login.central.region=us", at.as_str()];
    let us = one.start_region(&[&COMMON[..], &own].concat()).await;

    one.account("alice", "right").await;
    logged_in(&us, "alice", "right").await;
    // A server that does not answer delays one `Hello`; then the other server is asked.
    one.account("carol", "right").await;
    one.signal("STOP").await;
    logged_in(&us, "carol", "right").await;
    one.signal("CONT").await;
    one.kill().await;
    other.account("bob", "right").await;
    logged_in(&us, "bob", "right").await;
    // Changes come from the other server too.
    other.accounts().ban(banned(true)).await.unwrap();
    refused_with(&us, "right", ErrorCode::Banned).await;
}

#[tokio::test]
async fn unreadable_account_does_not_delay_other_accounts() {
    let server = Postgres::start().await;
    let key = |byte: &str| format!("login.second_factor_secret={}", byte.repeat(32));
    let (store, central) =
        (format!("login.store={}", server.url()), format!("login.central.store={}", server.url()));
    let own = [store.as_str(), central.as_str(), "login.central.region=eu"];
    let (right, wrong) = (key("5a"), key("a5"));
    let mut one = Cluster::start_with(&[&COMMON[..], &own, &[&right]].concat()).await;
    let other = one.start_region(&[&COMMON[..], &own, &[&wrong]].concat()).await;
    // The region follows the server with the wrong key.
    let at = format!("login.central.servers={},{}", other.grpc_address(), one.grpc_address());
    let own = ["login.central.region=us", at.as_str()];
    let us = one.start_region(&[&COMMON[..], &own].concat()).await;
    for name in ["alice", "bob", "carol"] {
        one.account(name, "right").await;
        logged_in(&us, name, "right").await;
    }

    let on = SetSecondFactorRequest { name: "alice".into(), on: true };
    one.accounts().set_second_factor(on).await.unwrap();
    refused_with(&us, "right", ErrorCode::SecondFactor).await;
    let changes_metric = "shardkeep_login_central_changes_total";
    assert!(us.metric(changes_metric, "unreadable").await >= 1.0);

    // No server can read the factor now.
    one.kill().await;
    other.accounts().ban(banned(true)).await.unwrap_err();
    let bob = BanRequest { name: "bob".into(), ..banned(true) };
    other.accounts().ban(bob).await.unwrap();
    eventually("bob is banned", || async {
        let refused = us.connect().await.log_in("bob", "right").await.err()?;
        (refused.code == ErrorCode::Banned).then_some(())
    })
    .await;
    refused_with(&us, "right", ErrorCode::SecondFactor).await;
    // An operator removes the factor, and the account arrives.
    let off = SetSecondFactorRequest { name: "alice".into(), on: false };
    other.accounts().set_second_factor(off).await.unwrap();
    refused_with(&us, "right", ErrorCode::Banned).await;
    logged_in(&us, "carol", "right").await;
}

#[tokio::test]
async fn store_of_another_region_is_refused() {
    let mut alone = Cluster::start().await;
    alone.account("alice", "right").await;
    let everywhere = alone.accounts().ban(banned(true)).await.unwrap_err();
    assert_eq!(everywhere.code(), Code::FailedPrecondition);
    let at = "login.central.servers=127.0.0.1:1";
    let log = alone.refuses_to_start_with(&["login.central.region=us", at]).await;
    assert!(
        log.contains("has 1 accounts that the centre does not know") && log.contains("login.central.adopt"),
        "{log}"
    );

    // A game with one region becomes the home region of several.
    let own = ["login.central.region=eu", "login.central.store=sqlite:{folder}/central.db"];
    alone.restart_with(&[&COMMON[..], &own, &["login.central.adopt=true"]].concat()).await;
    let us = other_region(&alone, &[]).await;
    let (_, welcome) = logged_in(&us, "alice", "right").await;
    assert_eq!(welcome.account_id, alone.show("alice").await.id);
    assert_eq!(active_in(&alone.show("alice").await), ["eu", "us"]);

    let mut us = Cluster::start_with(&["login.central.region=us", at]).await;
    let refused = us.accounts().create(new_account("alice", "right")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let log = us.refuses_to_start_with(&["login.central.region=asia", at]).await;
    assert!(log.contains("belongs to the region `us`"), "{log}");
    let log = us.refuses_to_start_with(&[]).await;
    assert!(log.contains("set login.central.region = \\\"us\\\""), "{log}");
}
