//! The centre and the copies of a region, each used by two replicas.

use std::collections::BTreeMap;

use shardkeep_testkit::Postgres;
use shardkeep_types::Generation;

use super::{
    change::{ChangeOutcome, set_ban, set_factor, set_proof},
    *,
};
use crate::{
    Schema,
    accounts::{
        self, AccountGeneration, FOREVER, RevocationCause,
        regional::{self, CopyOutcome, RegionMembership, RevocationCauses},
        revocations,
        second_factor::{self, FactorUpdate},
    },
};

fn proof(byte: u8) -> Proof {
    Proof { group: 2048, salt: vec![byte; 16], verifier: Secret::new(vec![byte; 256]) }
}

fn ban(reason: &str) -> Ban {
    Ban { until_ms: FOREVER, reason: reason.to_owned() }
}

fn page(accounts: u32) -> Page {
    Page { accounts, versions: 1_000 }
}

fn expect_account(changed: ChangeOutcome) -> Account {
    match changed {
        ChangeOutcome::Current(account) => *account,
        ChangeOutcome::Unknown => panic!("there is no such account"),
        ChangeOutcome::Conflict => panic!("it was changed meanwhile"),
    }
}

async fn create_account(centre: &Database, name: &str) -> Account {
    create(centre, name, &proof(1), "eu").await.unwrap().unwrap()
}

/// Two handles. On PostgreSQL they act as two replicas.
struct Replicas(Database, Database);

async fn repeated_change_is_idempotent(Replicas(one, other): &Replicas) {
    let alice = create_account(one, "alice").await;
    assert!(create_account(other, "alice").await == alice, "asked again with the same proof");
    assert!(create(other, "alice", &proof(2), "us").await.unwrap().is_none(), "taken");
    let bob = create_account(other, "bob").await;
    assert!(bob.version > alice.version && bob.id != alice.id);
    // A restore sets the counter back, but not the clock.
    one.execute(sql("UPDATE central_numbers SET next_account = 1")).await.unwrap();
    let clock = || one.fetch_optional(sql("SELECT {now_ms} - 1767225600000"));
    while clock().await.unwrap().unwrap().take::<u64>().unwrap() <= bob.id.0 {}
    assert!(create_account(one, "newcomer").await.id > bob.id);

    let changed = expect_account(set_proof(one, alice.id, Some(alice.version), &proof(3)).await.unwrap());
    assert!(changed.version > bob.version && changed.proof == proof(3));
    let again = set_proof(other, alice.id, Some(alice.version), &proof(3)).await.unwrap();
    assert!(expect_account(again) == changed, "whoever got no answer may ask again");
    let late = set_proof(other, alice.id, Some(alice.version), &proof(4)).await.unwrap();
    assert!(matches!(late, ChangeOutcome::Conflict));
    let missing = set_proof(one, AccountId(u64::from(u32::MAX)), None, &proof(3)).await.unwrap();
    assert!(matches!(missing, ChangeOutcome::Unknown));

    let banned = expect_account(set_ban(one, alice.id, &ban("cheats")).await.unwrap());
    assert!(expect_account(set_ban(other, alice.id, &ban("cheats")).await.unwrap()) == banned);
    assert!(expect_account(set_ban(one, alice.id, &Ban::default()).await.unwrap()).version > banned.version);
    let factor = expect_account(set_factor(one, alice.id, None, Some(b"sealed")).await.unwrap());
    assert_eq!(factor.factor_version, factor.version);
    let none = expect_account(set_factor(one, alice.id, Some(factor.version), None).await.unwrap());
    assert!(expect_account(set_factor(other, alice.id, Some(factor.version), None).await.unwrap()) == none);
    assert!(by_name(other, "alice").await.unwrap().unwrap() == none);
    assert!(by_id(other, bob.id).await.unwrap().unwrap() == bob);
    assert!(by_name(one, "nobody").await.unwrap().is_none());
}

async fn concurrent_activation_is_idempotent(Replicas(one, other): &Replicas) {
    let id = create_account(one, "carol").await.id;
    let (here, there) = tokio::join!(activate(one, id, "us"), activate(other, id, "us"));
    assert!(here.unwrap() == there.unwrap());
    activate(one, id, "us").await.unwrap().unwrap();
    let regions = activations(other, id).await.unwrap();
    assert_eq!(regions.iter().map(|it| it.region.as_str()).collect::<Vec<_>>(), ["eu", "us"]);
    assert!(regions.iter().all(|it| it.since_ms > 0));
    assert!(activate(one, AccountId(u64::from(u32::MAX)), "us").await.unwrap().is_none());
}

async fn changes_list_only_accounts_of_the_region(Replicas(one, other): &Replicas) {
    let begin = version(one).await.unwrap();
    let (dan, eve) = (create_account(one, "dan").await, create_account(other, "eve").await);
    activate(one, eve.id, "asia").await.unwrap().unwrap();
    let told = |changes: &Changes| changes.accounts.iter().map(|it| it.id).collect::<Vec<_>>();
    let asia = changes(other, "asia", begin, page(10)).await.unwrap();
    assert_eq!((told(&asia), asia.through), (vec![eve.id], eve.version));
    // Nothing follows the last change until another one comes.
    assert!(changes(one, "asia", asia.through, page(10)).await.unwrap().accounts.is_empty());
    set_proof(one, dan.id, None, &proof(5)).await.unwrap();
    let skipped = changes(one, "asia", asia.through, page(10)).await.unwrap();
    assert_eq!((skipped.accounts.len(), skipped.through), (0, version(one).await.unwrap()));
    let changed = expect_account(set_proof(other, eve.id, None, &proof(6)).await.unwrap());
    let asia = changes(one, "asia", skipped.through, page(10)).await.unwrap();
    assert!(asia.accounts == [changed]);
    // One read looks at a limited number of versions.
    let narrow = changes(one, "asia", begin, Page { accounts: 10, versions: 1 }).await.unwrap();
    assert_eq!((narrow.accounts.len(), narrow.through), (0, begin + 1));
    // Page by page.
    let first = changes(one, "eu", begin, page(1)).await.unwrap();
    assert_eq!(
        (told(&first), first.through),
        (vec![dan.id], by_id(one, dan.id).await.unwrap().unwrap().version)
    );
    assert_eq!(told(&changes(one, "eu", first.through, page(1)).await.unwrap()), [eve.id]);
    assert!(groups(one).await.unwrap().iter().all(|(group, count)| *group == 2048 && *count > 0));
}

/// A follower misses no change, in whichever order the changes commit.
async fn changes_miss_no_concurrent_update(Replicas(one, other): &Replicas) {
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(create_account(one, &format!("busy{number}")).await.id);
    }
    let begin = version(one).await.unwrap();
    let mut changing = tokio::task::JoinSet::new();
    for (number, id) in ids.iter().copied().enumerate() {
        let database = if number % 2 == 0 { one.clone() } else { other.clone() };
        changing.spawn(async move {
            for byte in 10..16 {
                expect_account(set_proof(&database, id, None, &proof(byte)).await.unwrap());
            }
        });
    }
    let (mut seen, mut after) = (BTreeMap::new(), begin);
    loop {
        let done = changing.is_empty();
        let page = changes(other, "eu", after, page(3)).await.unwrap();
        for account in &page.accounts {
            assert!(account.version > after && account.version <= page.through);
            seen.insert(account.id, account.proof.clone());
        }
        let level = page.accounts.is_empty();
        after = page.through;
        if done && level {
            break;
        }
        while let Some(ended) = changing.try_join_next() {
            ended.unwrap();
        }
    }
    assert_eq!(after, version(one).await.unwrap());
    assert!(ids.iter().all(|id| seen[id] == proof(15)));
}

fn causes() -> RevocationCauses {
    let cause = |code, detail: &str| RevocationCause { code, detail: detail.to_owned() };
    RevocationCauses { password: cause(10, "password"), factor: cause(11, "factor"), ban: cause(7, "banned") }
}

async fn ended(region: &Database, account: &Account) -> Option<(u64, u32)> {
    match regional::apply(region, account, &causes()).await.unwrap() {
        CopyOutcome::Updated { ended } => ended.map(|(raised, cause)| (raised.generation.0, cause.code)),
        other => panic!("{other:?}"),
    }
}

async fn regional_copy_never_goes_back(centre: &Database, Replicas(one, other): &Replicas) {
    let first = create_account(centre, "fay").await;
    let none = causes();
    let (here, there) =
        tokio::join!(regional::apply(one, &first, &none), regional::apply(other, &first, &none));
    let both = [here.unwrap(), there.unwrap()];
    assert!(both.contains(&CopyOutcome::Inserted) && both.contains(&CopyOutcome::Unchanged), "{both:?}");
    let found = accounts::credentials(one, "fay").await.unwrap().unwrap();
    assert!(found.id == first.id && found.proof == proof(1) && found.generation == Generation(1));

    // Data of the region itself stays unchanged.
    accounts::ban(one, "fay", &Ban { until_ms: 5, reason: "here".into() }, &none.ban).await.unwrap().unwrap();
    assert!(accounts::set_staff(one, "fay", true).await.unwrap());
    let second = expect_account(set_proof(centre, first.id, None, &proof(2)).await.unwrap());
    let third = expect_account(set_ban(centre, first.id, &ban("cheats")).await.unwrap());
    assert_eq!(ended(one, &third).await, Some((3, 7)));
    for old in [&first, &second, &third] {
        assert_eq!(regional::apply(other, old, &causes()).await.unwrap(), CopyOutcome::Unchanged);
    }
    let seen = accounts::by_name(other, "fay").await.unwrap().unwrap();
    assert_eq!((seen.central_version, seen.staff, seen.ban.until_ms), (third.version, true, 5));
    assert_eq!((seen.ban_everywhere.clone(), seen.effective_ban()), (ban("cheats"), ban("cheats")));
    let found = accounts::credentials(one, "fay").await.unwrap().unwrap();
    assert!(found.proof == proof(2) && found.ban == ban("cheats"));
    let told = revocations::outdated(one, &[(first.id, Generation(2))]).await.unwrap();
    assert_eq!(told[0].cause, none.ban);

    // The end of a ban ends no session, but a new password does.
    let unbanned = expect_account(set_ban(centre, first.id, &Ban::default()).await.unwrap());
    assert_eq!(ended(one, &unbanned).await, None);
    assert_eq!(accounts::credentials(one, "fay").await.unwrap().unwrap().ban.until_ms, 5);
    let changed = expect_account(set_proof(centre, first.id, None, &proof(9)).await.unwrap());
    assert_eq!(ended(other, &changed).await, Some((4, 10)));

    let other_name = Account { name: "somebody".into(), version: changed.version + 1, ..changed.clone() };
    assert!(regional::apply(one, &other_name, &causes()).await.is_err(), "of another centre");
    let other_id = Account { id: AccountId(first.id.0 + 1_000), ..changed };
    assert!(regional::apply(one, &other_id, &causes()).await.is_err(), "of another centre");
}

async fn used_codes_stay_used_after_central_update(centre: &Database, region: &Database) {
    let account = create_account(centre, "gil").await;
    regional::apply(region, &account, &causes()).await.unwrap();
    let of = |generation| AccountGeneration { id: account.id, generation: Generation(generation) };
    assert_eq!(second_factor::begin(region, of(1), b"begun").await.unwrap(), FactorUpdate::Done(()));
    let named = expect_account(set_proof(centre, account.id, None, &proof(2)).await.unwrap());
    ended(region, &named).await;
    assert!(
        second_factor::find(region, account.id).await.unwrap().is_some(),
        "begun here, not removed from there"
    );
    let mut with = expect_account(set_factor(centre, account.id, None, Some(b"sealed there")).await.unwrap());
    with.factor = Some(Secret::new(b"sealed here".to_vec()));
    // The code by which the player has confirmed the factor is used up.
    let begun = second_factor::find(region, account.id).await.unwrap().unwrap();
    let used = second_factor::consume_codes(region, of(2), &begun, &(99..=99)).await.unwrap();
    assert_eq!(used, FactorUpdate::Done(()));
    assert_eq!(ended(region, &with).await, Some((3, 11)), "whoever is here by the password alone");
    let found = second_factor::find(region, account.id).await.unwrap().unwrap();
    assert!(found.confirmed && found.secret.expose() == b"sealed here");
    let accept =
        async |steps| second_factor::accept(region, account.id, &found.secret, &steps, None).await.unwrap();
    assert!(!accept(99..=99).await);
    assert!(accept(100..=100).await);
    let same = expect_account(set_ban(centre, account.id, &ban("x")).await.unwrap());
    ended(region, &Account { factor: with.factor.clone(), ..same }).await;
    assert!(!accept(100..=100).await, "the same secret");
    let mut another =
        expect_account(set_factor(centre, account.id, None, Some(b"another there")).await.unwrap());
    another.factor = Some(Secret::new(b"another here".to_vec()));
    assert_eq!(ended(region, &another).await, Some((5, 11)));
    let without = expect_account(set_factor(centre, account.id, None, None).await.unwrap());
    assert_eq!(ended(region, &without).await, None);
    assert!(second_factor::find(region, account.id).await.unwrap().is_none());
}

async fn store_joins_only_one_region(region: &Database) {
    assert_eq!(regional::region(region).await.unwrap(), None);
    assert_eq!(regional::join(region, "eu").await.unwrap(), RegionMembership::Member("eu".into()));
    assert_eq!(regional::join(region, "us").await.unwrap(), RegionMembership::Member("eu".into()));
    regional::follow(region, 7).await.unwrap();
    regional::follow(region, 5).await.unwrap();
    assert_eq!(regional::followed(region).await.unwrap(), 7, "it never goes back");
}

/// A game of one region becomes the home of several.
async fn adopt_moves_accounts_to_centre(centre: &Database, standalone: &Database) {
    let mut ids = Vec::new();
    for (name, byte) in [("old-one", 1), ("old-two", 2), ("old-three", 3)] {
        ids.push(accounts::create(standalone, name, &proof(byte)).await.unwrap().unwrap());
    }
    second_factor::set(standalone, ids[1], b"sealed", &causes().factor).await.unwrap().unwrap();
    let of = AccountGeneration { id: ids[2], generation: Generation(1) };
    assert_eq!(second_factor::begin(standalone, of, b"begun").await.unwrap(), FactorUpdate::Done(()));
    accounts::ban(standalone, "old-three", &ban("here"), &causes().ban).await.unwrap().unwrap();
    // The centre already has accounts with the same names or ids, so it refuses these.
    if let Some(there) = by_name(centre, "old-one").await.unwrap() {
        assert!(adopt::adopt(centre, standalone, "home").await.is_err());
        let rename = sql("UPDATE accounts SET name = 'x-' || name");
        assert_eq!(standalone.execute(rename).await.unwrap(), 3);
        let renumber = sql("UPDATE accounts SET id = $1 WHERE name = 'x-old-one'").bind(there.id.0);
        assert_eq!(standalone.execute(renumber).await.unwrap(), 1);
        assert!(adopt::adopt(centre, standalone, "home").await.is_err());
        assert_eq!(
            regional::join(standalone, "home").await.unwrap(),
            RegionMembership::Standalone { accounts: 3 }
        );
        return;
    }
    assert_eq!(adopt::adopt(centre, standalone, "home").await.unwrap(), 3);
    assert_eq!(adopt::adopt(centre, standalone, "home").await.unwrap(), 0, "done already");
    assert_eq!(regional::join(standalone, "home").await.unwrap(), RegionMembership::Member("home".into()));
    let changes = changes(centre, "home", 0, page(10)).await.unwrap();
    assert_eq!(changes.accounts.iter().map(|it| it.id).collect::<Vec<_>>(), ids);
    assert_eq!(changes.through, version(centre).await.unwrap());
    let factors: Vec<_> = changes.accounts.iter().map(|it| it.factor.is_some()).collect();
    assert_eq!(factors, [false, true, false]);
    for account in &changes.accounts {
        assert!(
            account.proof == accounts::credentials(standalone, &account.name).await.unwrap().unwrap().proof
        );
        assert_eq!(regional::apply(standalone, account, &causes()).await.unwrap(), CopyOutcome::Unchanged);
    }
    assert_eq!(changes.accounts[2].ban, Ban::default(), "a region's ban stays the region's");
    assert!(create_account(centre, "new").await.id > ids[2]);
    let changed = expect_account(set_proof(centre, ids[1], None, &proof(9)).await.unwrap());
    // The second factor was the first to raise the generation.
    assert_eq!(ended(standalone, &changed).await, Some((3, 10)));
}

async fn store_with_accounts_does_not_join(standalone: &Database) {
    let id = accounts::create(standalone, "alice", &proof(1)).await.unwrap().unwrap();
    assert_eq!(regional::join(standalone, "eu").await.unwrap(), RegionMembership::Standalone { accounts: 1 });
    let raised = AccountGeneration { id, generation: Generation(2) };
    assert!(accounts::raise_generation(standalone, "alice", &causes().ban).await.unwrap() == Some(raised));
}

async fn all(centre: Replicas, region: Replicas) {
    store_joins_only_one_region(&region.0).await;
    repeated_change_is_idempotent(&centre).await;
    concurrent_activation_is_idempotent(&centre).await;
    changes_list_only_accounts_of_the_region(&centre).await;
    changes_miss_no_concurrent_update(&centre).await;
    regional_copy_never_goes_back(&centre.0, &region).await;
    used_codes_stay_used_after_central_update(&centre.0, &region.0).await;
}

#[tokio::test]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, schema| {
        let url = format!("sqlite:{}", folder.path().join(name).display());
        async move { Database::open(&url, schema).await.unwrap() }
    };
    let (centre, region) =
        (open("central.db", Schema::Central).await, open("login.db", Schema::Accounts).await);
    all(Replicas(centre.clone(), centre), Replicas(region.clone(), region)).await;
    store_with_accounts_does_not_join(&open("alone.db", Schema::Accounts).await).await;
    let (centre, standalone) =
        (open("home.db", Schema::Central).await, open("old.db", Schema::Accounts).await);
    adopt_moves_accounts_to_centre(&centre, &standalone).await;
    adopt_moves_accounts_to_centre(&centre, &open("other.db", Schema::Accounts).await).await;
}

#[tokio::test]
async fn on_postgres() {
    let server = Postgres::start().await;
    let open = |schema| {
        let url = server.url();
        async move { Database::open(&url, schema).await.unwrap() }
    };
    let centre = Replicas(open(Schema::Central).await, open(Schema::Central).await);
    all(centre, Replicas(open(Schema::Accounts).await, open(Schema::Accounts).await)).await;
    let server = Postgres::start().await;
    let open = |schema| {
        let url = server.url();
        async move { Database::open(&url, schema).await.unwrap() }
    };
    adopt_moves_accounts_to_centre(&open(Schema::Central).await, &open(Schema::Accounts).await).await;
}
