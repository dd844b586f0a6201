use std::time::Duration;

use shardkeep_testkit::Postgres;
use shardkeep_types::WorldId;

use super::{
    invitations::Registered,
    logins::{LoginRules, Process},
    second_factor::{AttemptLimit, FactorUpdate},
    *,
};
use crate::Schema;

fn proof(byte: u8) -> Proof {
    Proof { group: 2048, salt: vec![byte; 16], verifier: Secret::new(vec![byte; 256]) }
}

fn cause(code: u32) -> RevocationCause {
    RevocationCause { code, detail: "because".to_owned() }
}

const OURS: Process = Process(7);

async fn log_in(
    database: &Database,
    id: AccountId,
    from: Generation,
    lease: Option<Duration>,
    cause: &RevocationCause,
) -> Result<bool, Error> {
    let rules = LoginRules { lease, cause: cause.clone(), login_process: OURS };
    Ok(logins::log_in(database, &[AccountGeneration { id, generation: from }], &rules).await? == [true])
}

async fn account_is_created_and_logs_in(database: &Database) {
    let alice = create(database, "alice", &proof(1)).await.unwrap().unwrap();
    assert_eq!(create(database, "alice", &proof(2)).await.unwrap(), None);
    let bob = create(database, "bob", &proof(3)).await.unwrap().unwrap();
    assert_ne!(alice, bob);

    let found = credentials(database, "alice").await.unwrap().unwrap();
    assert!(found.id == alice && found.proof == proof(1) && found.ban == Ban::default());
    assert!(credentials(database, "carol").await.unwrap().is_none());

    // Of two logins from the same generation, one succeeds.
    assert!(log_in(database, alice, found.generation, None, &cause(9)).await.unwrap());
    assert!(!log_in(database, alice, found.generation, None, &cause(9)).await.unwrap());
    let seen = by_id(database, alice).await.unwrap().unwrap();
    assert_eq!(seen.generation, found.generation.next());
    assert!(seen.last_login_ms >= seen.created_ms && seen.created_ms > 0);
    assert_eq!(by_name(database, "alice").await.unwrap(), Some(seen));
}

/// Sets the counter to its state before any account existed, as an old backup does.
async fn restored_store_reuses_no_account_id(database: &Database) {
    let backup = database.fetch_optional(sql("SELECT next FROM account_numbers")).await.unwrap();
    let backup: u64 = backup.unwrap().take().unwrap();
    let lost = create(database, "lost", &proof(1)).await.unwrap().unwrap();
    let also_lost = create(database, "also_lost", &proof(1)).await.unwrap().unwrap();
    assert!(also_lost > lost, "{also_lost:?} {lost:?}");
    let mut tx = database.begin().await.unwrap();
    tx.execute(sql("DELETE FROM accounts WHERE name IN ('lost', 'also_lost')")).await.unwrap();
    tx.execute(sql("UPDATE account_numbers SET next = $1").bind(backup)).await.unwrap();
    tx.commit().await.unwrap();
    // The restore takes long enough for the clock to pass all assigned ids.
    while now(database).await <= also_lost.0 {}
    let newcomer = create(database, "newcomer", &proof(1)).await.unwrap().unwrap();
    assert!(newcomer > also_lost, "{newcomer:?} {also_lost:?}");
}

/// Milliseconds since 2026 on the database's clock.
async fn now(database: &Database) -> u64 {
    let row = database.fetch_optional(sql("SELECT {now_ms} - 1767225600000")).await.unwrap();
    row.unwrap().take().unwrap()
}

async fn id_counter_ahead_of_clock_continues(database: &Database) {
    let ahead = now(database).await + 1_000_000_000;
    database.execute(sql("UPDATE account_numbers SET next = $1").bind(ahead)).await.unwrap();
    let ids = [create(database, "ahead_1", &proof(1)).await, create(database, "ahead_2", &proof(1)).await];
    assert_eq!(ids.map(|id| id.unwrap().unwrap().0), [ahead, ahead + 1]);
}

async fn operator_commands_raise_generation(database: &Database) {
    create(database, "dora", &proof(1)).await.unwrap().unwrap();
    let for_ever = Ban { until_ms: FOREVER, reason: "cheats".to_owned() };
    let banned = ban(database, "dora", &for_ever, &cause(7)).await.unwrap().unwrap();
    assert_eq!(banned.generation, Generation(2));
    assert_eq!(credentials(database, "dora").await.unwrap().unwrap().ban, for_ever);
    assert!(unban(database, "dora").await.unwrap());
    assert_eq!(by_name(database, "dora").await.unwrap().unwrap().ban, Ban::default());
    assert_eq!(
        raise_generation(database, "dora", &cause(10)).await.unwrap().unwrap().generation,
        Generation(3)
    );
    assert_eq!(
        set_proof(database, "dora", &proof(9), &cause(10)).await.unwrap().unwrap().generation,
        Generation(4)
    );
    assert!(credentials(database, "dora").await.unwrap().unwrap().proof == proof(9));

    assert_eq!(raise_generation(database, "nobody", &cause(10)).await.unwrap(), None);
    assert_eq!(ban(database, "nobody", &for_ever, &cause(7)).await.unwrap(), None);
    assert!(!unban(database, "nobody").await.unwrap());
}

async fn list_is_paged_by_name(database: &Database) {
    for name in ["x_a", "xba", "x_b", "x_c"] {
        create(database, name, &proof(1)).await.unwrap().unwrap();
    }
    let names = |accounts: Vec<Account>| accounts.into_iter().map(|account| account.name).collect::<Vec<_>>();
    let first = names(list(database, "x_", "", 2).await.unwrap());
    assert_eq!(first, ["x_a", "x_b"]);
    assert_eq!(names(list(database, "x_", &first[1], 2).await.unwrap()), ["x_c"]);
}

async fn srp_groups_are_counted(database: &Database) {
    let before = groups(database).await.unwrap();
    let [(2048, usual)] = before[..] else { panic!("{before:?}") };
    create(database, "long", &Proof { group: 4096, ..proof(1) }).await.unwrap().unwrap();
    let mut after = groups(database).await.unwrap();
    after.sort_unstable();
    assert_eq!(after, [(2048, usual), (4096, 1)]);
}

async fn shared_secret_is_created_once(database: &Database) {
    let first = shared_secret(database, "decoy", &Secret::new([1; 32])).await.unwrap();
    assert_eq!(shared_secret(database, "decoy", &Secret::new([2; 32])).await.unwrap(), first);
}

async fn lease_blocks_second_login_until_expiry(database: &Database) {
    let minute = Some(Duration::from_secs(60));
    let id = create(database, "eve", &proof(1)).await.unwrap().unwrap();
    let entered = |generation| AccountGeneration { id, generation: Generation(generation) };
    assert!(log_in(database, id, Generation(1), minute, &cause(9)).await.unwrap());
    assert!(!log_in(database, id, Generation(2), minute, &cause(9)).await.unwrap());
    assert!(leases::remaining(database, entered(2)).await.unwrap() > Some(Duration::from_secs(30)));
    assert_eq!(leases::remaining(database, entered(1)).await.unwrap(), None);
    // A login without leases ignores leases; a new generation frees the account.
    raise_generation(database, "eve", &cause(10)).await.unwrap().unwrap();
    assert!(!leases::renew(database, entered(3), Duration::from_secs(60)).await.unwrap());
    assert!(log_in(database, id, Generation(3), minute, &cause(9)).await.unwrap());
    leases::release(database, entered(4)).await.unwrap();
    assert!(log_in(database, id, Generation(4), minute, &cause(9)).await.unwrap());
    assert!(leases::renew(database, entered(5), Duration::ZERO).await.unwrap());
    assert!(log_in(database, id, Generation(5), minute, &cause(9)).await.unwrap(), "it has run out");
    assert!(log_in(database, id, Generation(6), None, &cause(9)).await.unwrap());
    // Of many concurrent logins, one succeeds.
    let displaced = cause(9);
    let racing = (0..4).map(|_| log_in(database, id, Generation(7), minute, &displaced)).collect();
    let mut entered = 0;
    for outcome in join_all(racing).await {
        entered += u32::from(outcome.unwrap());
    }
    assert_eq!(entered, 1);
}

/// Runs all futures concurrently.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

async fn revocations_are_listed_since_time(database: &Database) {
    let begin = revocations::now(database).await.unwrap();
    let [one, two, three] = ["r-one", "r-two", "r-three"];
    let mut ids = Vec::new();
    for name in [one, two, three] {
        ids.push(create(database, name, &proof(1)).await.unwrap().unwrap());
    }
    raise_generation(database, one, &cause(10)).await.unwrap().unwrap();
    let banned = Ban { until_ms: FOREVER, reason: "cheats".into() };
    ban(database, one, &banned, &cause(7)).await.unwrap().unwrap();
    assert!(log_in(database, ids[1], Generation(1), None, &cause(9)).await.unwrap());
    let mine = |found: Vec<revocations::Revocation>| {
        let mine = found.into_iter().filter(|it| ids.contains(&it.account));
        let mut mine: Vec<_> = mine.map(|it| (it.account, it.below.0, it.cause.code)).collect();
        mine.sort_unstable();
        mine
    };
    let all = [(ids[0], 3, 7), (ids[1], 2, 9)];
    let theirs = revocations::since(database, begin, Process(8), 1_000).await.unwrap();
    assert!(theirs.now_ms >= begin);
    assert_eq!(mine(theirs.found), all);
    // A process skips revocations that its logins caused, and sees all others.
    let ours = revocations::since(database, begin, OURS, 1_000).await.unwrap();
    assert_eq!(mine(ours.found), all[..1]);
    let everything = revocations::since(database, begin, Process::NONE, 1_000).await.unwrap();
    assert_eq!(mine(everything.found), all);
    let nothing = revocations::since(database, ours.now_ms + 60_000, OURS, 1_000).await.unwrap();
    assert!(nothing.found.is_empty() && nothing.now_ms >= ours.now_ms);
    let held = [(ids[0], Generation(2)), (ids[1], Generation(2)), (ids[2], Generation(1))];
    assert_eq!(mine(revocations::outdated(database, &held).await.unwrap()), [(ids[0], 3, 7)]);
    assert_eq!(revocations::outdated(database, &[]).await.unwrap(), []);
    // Requests of a player require the session of the current generation.
    assert_eq!(raise_generation_if_current(database, ids[1], Generation(1), &cause(10)).await.unwrap(), None);
    let raised =
        raise_generation_if_current(database, ids[1], Generation(2), &cause(10)).await.unwrap().unwrap();
    assert_eq!(raised.generation, Generation(3));
    assert_eq!(change_proof(database, ids[1], Generation(2), &proof(8), &cause(10)).await.unwrap(), None);
    change_proof(database, ids[1], Generation(3), &proof(8), &cause(10)).await.unwrap().unwrap();
    assert!(credentials(database, two).await.unwrap().unwrap().proof == proof(8));
}

async fn batched_logins_have_separate_outcomes(database: &Database) {
    let mut from = Vec::new();
    for name in ["l-one", "l-two", "l-three", "l-four"] {
        let id = create(database, name, &proof(1)).await.unwrap().unwrap();
        from.push(AccountGeneration { id, generation: Generation(1) });
    }
    raise_generation(database, "l-two", &cause(10)).await.unwrap().unwrap();
    // A login with an outdated generation, two of one account, and one of an unknown account.
    let again =
        [from[0], from[1], from[2], from[0], AccountGeneration { id: AccountId(u64::MAX >> 1), ..from[0] }];
    let rules = |lease| LoginRules { lease, cause: cause(9), login_process: OURS };
    let outcome = logins::log_in(database, &again, &rules(None)).await.unwrap();
    assert_eq!(outcome, [true, false, true, false, false]);
    let ids: Vec<_> = from.iter().map(|it| it.id).collect();
    let present = async || generations(database, &ids).await.unwrap();
    assert_eq!(present().await, [2, 2, 2, 1].map(|it| Some(Generation(it))));
    assert_eq!(generations(database, &[]).await.unwrap(), []);
    assert_eq!(
        generations(database, &[AccountId(u64::MAX >> 1), ids[3]]).await.unwrap(),
        [None, Some(Generation(1))]
    );
    let told =
        revocations::outdated(database, &from.iter().map(|it| (it.id, it.generation)).collect::<Vec<_>>())
            .await
            .unwrap();
    let mut told: Vec<_> = told.into_iter().map(|it| (it.account, it.below.0, it.cause.code)).collect();
    told.sort_unstable();
    assert_eq!(told, [(ids[0], 2, 9), (ids[1], 2, 10), (ids[2], 2, 9)], "who was not let in changed nothing");

    let minute = Duration::from_secs(60);
    let next = [from[3], AccountGeneration { generation: Generation(2), ..from[0] }];
    assert_eq!(logins::log_in(database, &next, &rules(Some(minute))).await.unwrap(), [true, true]);
    // Two accounts are leased now; the third is free.
    let next = [
        AccountGeneration { generation: Generation(2), ..from[3] },
        AccountGeneration { generation: Generation(2), ..from[2] },
        AccountGeneration { generation: Generation(3), ..from[0] },
    ];
    assert_eq!(logins::log_in(database, &next, &rules(Some(minute))).await.unwrap(), [false, true, false]);
    assert_eq!(present().await, [3, 2, 3, 2].map(|it| Some(Generation(it))));
    assert!(
        leases::remaining(database, AccountGeneration { generation: Generation(3), ..from[2] })
            .await
            .unwrap()
            .is_some()
    );

    let found = credentials_of(database, &["l-two", "nobody", "l-one", "l-two"]).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|it| it.map(|it| (it.id, it.generation.0))).collect();
    assert_eq!(found, [Some((ids[1], 2)), None, Some((ids[0], 3)), Some((ids[1], 2))]);
}

/// Two replicas log in the same accounts at once, in different order. Each account is raised by one of them.
async fn concurrent_login_batches_do_not_deadlock(one: &Database, other: &Database) {
    const ROUNDS: u64 = 20;
    let mut ids = Vec::new();
    for number in 0..16 {
        ids.push(create(one, &format!("race-{number}"), &proof(1)).await.unwrap().unwrap());
    }
    let there: Vec<_> = ids.iter().rev().copied().collect();
    for round in 1..=ROUNDS {
        let generation = Generation(round);
        let of = |ids: &[AccountId]| {
            ids.iter().map(|id| AccountGeneration { id: *id, generation }).collect::<Vec<_>>()
        };
        let lease = (round % 2 == 0).then_some(Duration::ZERO);
        let rules = LoginRules { lease, cause: cause(9), login_process: OURS };
        let (ours, theirs) = (of(&ids), of(&there));
        let (ours, theirs) =
            tokio::join!(logins::log_in(one, &ours, &rules), logins::log_in(other, &theirs, &rules));
        let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        theirs.reverse();
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert!(ours != theirs, "one of them, and not both");
        }
    }
    let present = generations(one, &ids).await.unwrap();
    assert!(present.into_iter().all(|it| it == Some(Generation(ROUNDS + 1))));
}

fn secret(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

async fn codes_are_single_use_and_attempts_limited(database: &Database) {
    let id = create(database, "fay", &proof(1)).await.unwrap().unwrap();
    let of = |generation| AccountGeneration { id, generation: Generation(generation) };
    let tries = AttemptLimit { burst: 2, every: Duration::from_secs(3_600) };
    assert_eq!(second_factor::begin(database, of(1), b"first").await.unwrap(), FactorUpdate::Done(()));
    assert_eq!(second_factor::begin(database, of(1), b"second").await.unwrap(), FactorUpdate::Done(()));
    assert!(!by_id(database, id).await.unwrap().unwrap().second_factor, "not before its first code");
    let confirm = async |generation, text, step| {
        second_factor::confirm(database, of(generation), &secret(text), step, &cause(10)).await.unwrap()
    };
    assert_eq!(confirm(1, "first", 100).await, FactorUpdate::FactorMismatch, "a code of the secret before");
    assert_eq!(
        confirm(1, "second", 100).await,
        FactorUpdate::Done(of(2)),
        "and who had the password alone is out"
    );
    assert_eq!(credentials(database, "fay").await.unwrap().unwrap().second_factor, Some(secret("second")));
    assert_eq!(
        second_factor::begin(database, of(2), b"another").await.unwrap(),
        FactorUpdate::FactorMismatch
    );
    assert_eq!(confirm(2, "second", 101).await, FactorUpdate::FactorMismatch, "one is in force");

    let accept = async |text, steps, charged| {
        second_factor::accept(database, id, &secret(text), &steps, charged).await.unwrap()
    };
    assert!(!accept("second", 100..=100, None).await, "used");
    assert!(!accept("second", 99..=99, None).await, "earlier than a used one");
    assert!(!accept("first", 101..=101, None).await, "of another secret");
    for expected in [true, true, false] {
        assert_eq!(second_factor::charge_attempt(database, id, tries).await.unwrap(), expected);
    }
    assert!(accept("second", 101..=102, None).await);
    assert!(!accept("second", 102..=103, None).await, "one of two was used");
    assert!(
        !second_factor::charge_attempt(database, id, tries).await.unwrap(),
        "two cost nothing and give nothing"
    );
    assert!(accept("second", 103..=103, Some(tries)).await);
    assert!(second_factor::charge_attempt(database, id, tries).await.unwrap(), "a right one is given back");

    // A session that is over cannot change anything.
    let factor = second_factor::find(database, id).await.unwrap().unwrap();
    let disable = async |generation, text, steps| {
        second_factor::disable(database, of(generation), &secret(text), &steps).await.unwrap()
    };
    assert_eq!(second_factor::begin(database, of(1), b"mine").await.unwrap(), FactorUpdate::SessionOutdated);
    assert_eq!(confirm(1, "second", 200).await, FactorUpdate::SessionOutdated);
    assert_eq!(disable(1, "second", 200..=200).await, FactorUpdate::SessionOutdated);
    let consume_codes = async |generation, steps| {
        second_factor::consume_codes(database, of(generation), &factor, &steps).await.unwrap()
    };
    assert_eq!(consume_codes(1, 200..=200).await, FactorUpdate::SessionOutdated);
    assert_eq!(consume_codes(2, 104..=104).await, FactorUpdate::Done(()));
    assert_eq!(consume_codes(2, 104..=104).await, FactorUpdate::FactorMismatch);
    assert_eq!(disable(2, "second", 104..=105).await, FactorUpdate::FactorMismatch, "used");
    assert_eq!(disable(2, "first", 105..=105).await, FactorUpdate::FactorMismatch, "of another secret");
    assert!(second_factor::find(database, id).await.unwrap().is_some());

    let set = second_factor::set(database, id, b"by an operator", &cause(10)).await.unwrap();
    assert_eq!(set, Some(of(3)));
    let missing = second_factor::set(database, AccountId(u64::MAX >> 1), b"x", &cause(10)).await.unwrap();
    assert_eq!(missing, None);
    let found = second_factor::find(database, id).await.unwrap().unwrap();
    assert!(found.confirmed && found.secret == secret("by an operator"));
    assert!(second_factor::charge_attempt(database, id, tries).await.unwrap());
    assert_eq!(disable(3, "by an operator", 105..=105).await, FactorUpdate::Done(()));
    assert!(!second_factor::remove(database, id).await.unwrap());
}

/// A request that waits for the statement that ends its session must be refused.
async fn factor_change_rechecks_session_after_lock_wait(one: &Database, other: &Database) {
    let id = create(one, "hal", &proof(1)).await.unwrap().unwrap();
    let mut tx = other.begin().await.unwrap();
    assert!(raise_generation_in(&mut tx, id, &cause(7)).await.unwrap().is_some());
    let wish = second_factor::begin(one, AccountGeneration { id, generation: Generation(1) }, b"mine");
    let commits = async {
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
        while other.fetch_optional(sql(waiting)).await.unwrap().unwrap().take::<u64>().unwrap() == 0 {}
        tx.commit().await.unwrap();
    };
    let both = async { tokio::join!(wish, commits) };
    let (wish, ()) =
        Box::pin(tokio::time::timeout(Duration::from_secs(30), both)).await.expect("it waits for its turn");
    assert_eq!(wish.unwrap(), FactorUpdate::SessionOutdated);
}

async fn world_closes_and_reopens(database: &Database) {
    let close = async |note, grace| {
        closed_worlds::close(database, WorldId(3), note, Duration::from_secs(grace)).await.unwrap();
        closed_worlds::list(database).await.unwrap().remove(0)
    };
    let (first, second) = (close("soon", 0).await, close("until nine", 100).await);
    assert_eq!((first.world, first.note.as_str(), first.left), (WorldId(3), "soon", Duration::ZERO));
    assert_eq!((second.world, second.note.as_str()), (WorldId(3), "until nine"));
    assert!(second.ends_ms >= first.ends_ms + 100_000 && second.left <= Duration::from_secs(100));
    assert!(second.left > Duration::from_secs(50));
    assert!(closed_worlds::open(database, WorldId(3)).await.unwrap());
    assert!(!closed_worlds::open(database, WorldId(3)).await.unwrap());
    create(database, "gus", &proof(1)).await.unwrap().unwrap();
    assert!(set_staff(database, "gus", true).await.unwrap());
    assert!(by_name(database, "gus").await.unwrap().unwrap().staff);
    assert!(!set_staff(database, "nobody", true).await.unwrap());
}

async fn invitation_uses_are_limited(database: &Database) {
    let (hash, hour, made) = ([7; 32], Duration::from_secs(3_600), proof(1));
    invitations::invite(database, &hash, 2, hour).await.unwrap();
    let register = |name: &'static str| invitations::register(database, &hash, name, &made);
    assert!(matches!(register("i-one").await.unwrap(), Registered::Created(_)));
    assert_eq!(register("i-one").await.unwrap(), Registered::NameTaken);
    assert!(matches!(register("i-two").await.unwrap(), Registered::Created(_)), "a taken name uses nothing");
    assert_eq!(register("i-three").await.unwrap(), Registered::NotInvited);
    let unknown = invitations::register(database, &[8; 32], "i-four", &proof(1)).await.unwrap();
    assert_eq!(unknown, Registered::NotInvited);
}

async fn all(database: &Database) {
    account_is_created_and_logs_in(database).await;
    operator_commands_raise_generation(database).await;
    list_is_paged_by_name(database).await;
    shared_secret_is_created_once(database).await;
    srp_groups_are_counted(database).await;
    lease_blocks_second_login_until_expiry(database).await;
    revocations_are_listed_since_time(database).await;
    batched_logins_have_separate_outcomes(database).await;
    codes_are_single_use_and_attempts_limited(database).await;
    world_closes_and_reopens(database).await;
    invitation_uses_are_limited(database).await;
    restored_store_reuses_no_account_id(database).await;
    id_counter_ahead_of_clock_continues(database).await;
}

#[tokio::test]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("login.db").display());
    let database = Database::open(&url, Schema::Accounts).await.unwrap();
    all(&database).await;
    concurrent_login_batches_do_not_deadlock(&database, &database).await;
}

#[tokio::test]
async fn on_postgres() {
    let server = Postgres::start().await;
    let database = Database::open(&server.url(), Schema::Accounts).await.unwrap();
    all(&database).await;
    let other = Database::open(&server.url(), Schema::Accounts).await.unwrap();
    concurrent_login_batches_do_not_deadlock(&database, &other).await;
    Box::pin(factor_change_rechecks_session_after_lock_wait(&database, &other)).await;
}
