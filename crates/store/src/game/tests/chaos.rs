//! Whatever order things happen in, and wherever the process dies: no item and no coin is lost or doubled.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestRunner};
use shardkeep_types::ItemId;
use tokio::{task::JoinSet, time::Instant};

use super::*;

const PEOPLE: usize = 4;

/// One thing that somebody does.
#[derive(Debug, Clone)]
enum Step {
    Drop {
        who: usize,
        item: usize,
    },
    PickUp {
        who: usize,
        item: usize,
    },
    Trade {
        one: usize,
        other: usize,
        item: usize,
        coins: i64,
    },
    Loot {
        spawn: u64,
        generation: u64,
    },
    Burn {
        who: usize,
        item: usize,
    },
    /// Another zone takes over; what is under way is fenced off.
    Handover {
        who: usize,
    },
    /// The process dies after the commit and before the answer: everything so far is sent again.
    Crash,
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let who = 0..PEOPLE;
    let item = 0..12usize;
    let step = prop_oneof![
        4 => (who.clone(), item.clone()).prop_map(|(who, item)| Step::Drop { who, item }),
        4 => (who.clone(), item.clone()).prop_map(|(who, item)| Step::PickUp { who, item }),
        4 => (who.clone(), who.clone(), item.clone(), 0..60i64)
            .prop_map(|(one, other, item, coins)| Step::Trade { one, other, item, coins }),
        2 => (0..3u64, 1..5u64).prop_map(|(spawn, generation)| Step::Loot { spawn, generation }),
        1 => (who.clone(), item).prop_map(|(who, item)| Step::Burn { who, item }),
        1 => who.prop_map(|who| Step::Handover { who }),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..count)
}

/// What the players and zones know; the database may know better.
struct Story {
    people: Vec<Character>,
    next: Vec<u64>,
    items: Vec<ItemId>,
    sent: Vec<HardAction>,
}

impl Story {
    async fn begin(game: &Game) -> Self {
        let mut people = Vec::new();
        for at in 0..PEOPLE {
            people.push(entered(game, &format!("Person{at}")).await);
        }
        let items = people.iter().flat_map(|one| &one.items).map(|item| item.id).collect();
        Self { people, next: vec![1; PEOPLE], items, sent: Vec::new() }
    }

    fn item(&self, at: usize) -> ItemId {
        self.items[at % self.items.len()]
    }

    fn begin_action(&mut self, who: usize, reason: &str) -> HardAction {
        let id = self.next[who];
        self.next[who] += 1;
        let one = &self.people[who];
        HardAction {
            action: Some(action_id(one, id)),
            fences: vec![fence(one)],
            reason: reason.to_owned(),
            ..HardAction::default()
        }
    }

    fn action(&mut self, step: &Step) -> Option<HardAction> {
        Some(match *step {
            Step::Drop { who, item } => {
                let moved = MoveItem {
                    item: self.item(item),
                    from: hands(&self.people[who]),
                    to: ground(),
                    at: Some(place()),
                };
                HardAction { items: vec![moved], ..self.begin_action(who, "drop") }
            }
            Step::PickUp { who, item } => {
                let moved = MoveItem {
                    item: self.item(item),
                    from: ground(),
                    to: hands(&self.people[who]),
                    at: None,
                };
                HardAction { items: vec![moved], ..self.begin_action(who, "pickup") }
            }
            Step::Burn { who, item } => {
                let end = Holder::Burn("used".to_owned());
                let moved =
                    MoveItem { item: self.item(item), from: hands(&self.people[who]), to: end, at: None };
                HardAction { items: vec![moved], ..self.begin_action(who, "use") }
            }
            Step::Trade { one, other, .. } if one == other => return None,
            Step::Trade { one, other, item, coins } => {
                let (from, to) = (hands(&self.people[one]), hands(&self.people[other]));
                let partner = self.begin_action(other, "trade");
                let mut action = self.begin_action(one, "trade");
                action.also.extend(partner.action);
                action.fences.extend(partner.fences);
                action.items =
                    vec![MoveItem { item: self.item(item), from: from.clone(), to: to.clone(), at: None }];
                if coins > 0 {
                    action.coins = vec![MoveCoins { from: to, to: from, amount: coins }];
                }
                action
            }
            Step::Loot { spawn, generation } => HardAction {
                once: Some(OnceKey { world: WORLD, spawn, generation }),
                mints: vec![MintItem { template: 3, count: 1, to: ground(), at: Some(place()) }],
                reason: "loot".to_owned(),
                ..HardAction::default()
            },
            Step::Handover { .. } | Step::Crash => return None,
        })
    }
}

/// Sends actions all at once, each to its answer.
async fn send_all(game: &Game, actions: &[HardAction]) -> Vec<Result<HardResult, GameError>> {
    let config = CommitterConfig { batch: 8, lanes: 3, ..CommitterConfig::default() };
    let observe: Observer = Arc::new(|_, _| {});
    let (committer, lanes) = Committer::new(game, config, &observe);
    let lanes: JoinSet<()> = lanes.into_iter().map(Lane::run).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut answers = JoinSet::new();
    for (at, action) in actions.iter().cloned().enumerate() {
        let committer = committer.clone();
        answers.spawn(async move { (at, committer.commit(action, deadline).await) });
    }
    drop(committer);
    let mut found = answers.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    lanes.join_all().await;
    found.into_iter().map(|(_, answer)| answer).collect()
}

async fn live(home: &Home, steps: &[Step]) {
    let mut game = home.open().await;
    let mut story = Story::begin(&game).await;
    for step in steps {
        match step {
            Step::Handover { who } => {
                let claim = claim(&story.people[*who], term(&game).await);
                story.people[*who] = game.claim(&claim).await.unwrap();
            }
            Step::Crash => {
                let first = send_all(&game, &story.sent).await;
                game.database.close().await;
                game = home.open().await;
                let again = send_all(&game, &story.sent).await;
                for (first, again) in first.iter().zip(&again) {
                    let Ok(first) = first else { continue };
                    let again = again.as_ref().unwrap();
                    assert!(!again.applied, "an answered action is applied again");
                    // Of an older generation's loot only that it has been minted is remembered.
                    assert!(again.minted == first.minted || again.minted.is_empty());
                }
                story.items.extend(first.into_iter().flatten().flat_map(|done| done.minted));
                story.sent.clear();
            }
            step => {
                let action = story.action(step);
                story.sent.extend(action);
            }
        }
    }
    send_all(&game, &story.sent).await;
    assert_conserved(&game).await;
    game.database.close().await;
}

fn chaos(cases: u32, length: usize, home: impl AsyncFn() -> Home) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    let result = runner.run(&steps(length), |steps| {
        runtime.block_on(async { live(&home().await, &steps).await });
        Ok(())
    });
    result.unwrap();
}

#[test]
fn sqlite_conserves_whatever_happens() {
    chaos(48, 60, async || Home::sqlite());
}

#[test]
fn postgres_conserves_whatever_happens() {
    chaos(8, 60, async || Home::postgres().await);
}
