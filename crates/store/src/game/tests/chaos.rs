//! Property tests: random actions in random order, with crashes. No item and no coin is lost or doubled.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestRunner};
use shardkeep_types::ItemId;
use tokio::{task::JoinSet, time::Instant};

use super::*;

const CHARACTERS: usize = 4;

/// One random step.
#[derive(Debug, Clone)]
enum Step {
    Drop {
        actor: usize,
        item: usize,
    },
    PickUp {
        actor: usize,
        item: usize,
    },
    Trade {
        one: usize,
        other: usize,
        item: usize,
        coins: i64,
    },
    Loot {
        number: u32,
        generation: u64,
    },
    Burn {
        actor: usize,
        item: usize,
    },
    /// A claim raises the epoch, so that pending actions become stale.
    Handover {
        actor: usize,
    },
    /// The process dies between commit and answer: all actions are sent again.
    Crash,
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let actor = 0..CHARACTERS;
    let item = 0..12usize;
    let step = prop_oneof![
        4 => (actor.clone(), item.clone()).prop_map(|(actor, item)| Step::Drop { actor, item }),
        4 => (actor.clone(), item.clone()).prop_map(|(actor, item)| Step::PickUp { actor, item }),
        4 => (actor.clone(), actor.clone(), item.clone(), 0..60i64)
            .prop_map(|(one, other, item, coins)| Step::Trade { one, other, item, coins }),
        2 => (0..3u32, 1..5u64).prop_map(|(number, generation)| Step::Loot { number, generation }),
        1 => (actor.clone(), item).prop_map(|(actor, item)| Step::Burn { actor, item }),
        1 => actor.prop_map(|actor| Step::Handover { actor }),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..count)
}

/// The knowledge of players and zones. The database may have moved on.
struct Model {
    characters: Vec<Character>,
    next: Vec<u64>,
    items: Vec<ItemId>,
    sent: Vec<HardAction>,
}

impl Model {
    async fn begin(game: &Game) -> Self {
        let mut characters = Vec::new();
        for at in 0..CHARACTERS {
            characters.push(create_claimed(game, &format!("Person{at}")).await);
        }
        let items = characters.iter().flat_map(|one| &one.items).map(|item| item.id).collect();
        Self { characters, next: vec![1; CHARACTERS], items, sent: Vec::new() }
    }

    fn item(&self, at: usize) -> ItemId {
        self.items[at % self.items.len()]
    }

    fn begin_action(&mut self, actor: usize, reason: &str) -> HardAction {
        let id = self.next[actor];
        self.next[actor] += 1;
        let one = &self.characters[actor];
        HardAction { action: Some(action_id(one, id)), fences: vec![fence(one)], ..super::action(reason) }
    }

    fn action(&mut self, step: &Step) -> Option<HardAction> {
        Some(match *step {
            Step::Drop { actor, item } => {
                let moved = MoveItem {
                    item: self.item(item),
                    from: held_by(&self.characters[actor]),
                    to: ground(),
                    at: Some(drop_position()),
                };
                HardAction { items: vec![moved], ..self.begin_action(actor, "drop") }
            }
            Step::PickUp { actor, item } => {
                let moved = MoveItem {
                    item: self.item(item),
                    from: ground(),
                    to: held_by(&self.characters[actor]),
                    at: None,
                };
                HardAction { items: vec![moved], ..self.begin_action(actor, "pickup") }
            }
            Step::Burn { actor, item } => {
                let end = Holder::Burn("used".to_owned());
                let moved = MoveItem {
                    item: self.item(item),
                    from: held_by(&self.characters[actor]),
                    to: end,
                    at: None,
                };
                HardAction { items: vec![moved], ..self.begin_action(actor, "use") }
            }
            Step::Trade { one, other, .. } if one == other => return None,
            Step::Trade { one, other, item, coins } => {
                let (from, to) = (held_by(&self.characters[one]), held_by(&self.characters[other]));
                let partner = self.begin_action(other, "trade");
                let mut action = self.begin_action(one, "trade");
                action.other_actions.extend(partner.action);
                action.fences.extend(partner.fences);
                action.items =
                    vec![MoveItem { item: self.item(item), from: from.clone(), to: to.clone(), at: None }];
                if coins > 0 {
                    action.coins = vec![MoveCoins { from: to, to: from, amount: coins }];
                }
                action
            }
            Step::Loot { number, generation } => HardAction {
                once: Some(OnceKey { world: WORLD, spawn: spawn(number), generation }),
                mints: vec![MintItem { template: 3, count: 1, to: ground(), at: Some(drop_position()) }],
                ..super::action("loot")
            },
            Step::Handover { .. } | Step::Crash => return None,
        })
    }
}

/// Sends all actions at once and waits for every answer.
async fn send_all(game: &Game, actions: &[HardAction]) -> Vec<Result<HardResult, GameError>> {
    let config = CommitterConfig { batch: 8, writers: 3, ..CommitterConfig::default() };
    let observe: Observer = Arc::new(|_, _| {});
    let (committer, writers) = Committer::new(game, config, &observe);
    let writers: JoinSet<()> = writers.into_iter().map(Writer::run).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut answers = JoinSet::new();
    for (at, action) in actions.iter().cloned().enumerate() {
        let committer = committer.clone();
        answers.spawn(async move { (at, committer.commit(action, deadline).await) });
    }
    drop(committer);
    let mut found = answers.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    writers.join_all().await;
    found.into_iter().map(|(_, answer)| answer).collect()
}

async fn run_steps(store: &TestStore, steps: &[Step]) {
    let mut game = store.open().await;
    let mut model = Model::begin(&game).await;
    for step in steps {
        match step {
            Step::Handover { actor } => {
                let claim = claim(&model.characters[*actor], term(&game).await);
                model.characters[*actor] = game.claim(&claim).await.unwrap();
            }
            Step::Crash => {
                let first = send_all(&game, &model.sent).await;
                game.database().clone().close().await;
                game = store.open().await;
                let again = send_all(&game, &model.sent).await;
                for (first, again) in first.iter().zip(&again) {
                    let Ok(first) = first else { continue };
                    let again = again.as_ref().unwrap();
                    assert!(!again.applied, "an answered action is applied again");
                    // The database stores no items of older loot generations.
                    assert!(again.minted == first.minted || again.minted.is_empty());
                }
                model.items.extend(first.into_iter().flatten().flat_map(|done| done.minted));
                model.sent.clear();
            }
            step => {
                let action = model.action(step);
                model.sent.extend(action);
            }
        }
    }
    send_all(&game, &model.sent).await;
    assert_conserved(&game).await;
    game.database().clone().close().await;
}

fn chaos(cases: u32, length: usize, store: impl AsyncFn() -> TestStore) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    let result = runner.run(&steps(length), |steps| {
        runtime.block_on(async { run_steps(&store().await, &steps).await });
        Ok(())
    });
    result.unwrap();
}

#[test]
fn sqlite_conserves_items_under_chaos() {
    chaos(48, 60, async || TestStore::sqlite());
}

#[test]
fn postgres_conserves_items_under_chaos() {
    chaos(8, 60, async || TestStore::postgres().await);
}
