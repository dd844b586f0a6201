//! Whose turn it is at the exponentiations. Pure: time is an argument.
//!
//! * Address prefixes (a /24, a /56) take turns, weighted by the cost of what they ask for (deficit round robin,
//!   Shreedhar and Varghese 1996): however much one asks, it gets its share and no more. Within a prefix, accounts
//!   take turns.
//! * Nobody waits in vain: whose turn would come after the time that its client waits is refused at once, and told
//!   when to come back. The estimate counts what is really in front of it and what a unit of work took lately.
//! * A full queue makes room at the cost of the prefix that asks for most, and of the account there that asks for
//!   most. Only the newcomer is refused when that is its own.
//! * One account has so many jobs at a time, from addresses that it does not usually come from.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use shardkeep_auth::AccountName;
use shardkeep_daemon::Prefix;

/// Units of work that a prefix may do in one turn: a login of the usual group.
const QUANTUM: u32 = 10;
/// What a unit takes before anything was measured.
const FIRST_GUESS: Duration = Duration::from_micros(125);
/// Weight of the newest measurement: one in so many.
const SMOOTHING: u32 = 16;
/// Shortest time to come back after, and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Jobs at work at once.
    pub(crate) threads: usize,
    /// Jobs that wait. Overflow: see the module.
    pub(crate) waiting: usize,
    /// Jobs of one account, waiting or at work. Overflow: the newcomer is refused.
    pub(crate) per_account: usize,
}

/// Who asks for how much.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) prefix: Prefix,
    pub(crate) account: AccountName,
    /// The account is used to this address: the bound per account does not hold, so that nobody elsewhere can keep
    /// the player out.
    pub(crate) trusted: bool,
    /// Units of work.
    pub(crate) cost: u32,
    /// The client does not wait any longer.
    pub(crate) until: Instant,
}

/// Work that has begun; give it back by [`Queue::finish`].
#[derive(Debug)]
pub(crate) struct Begun {
    account: AccountName,
    cost: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<B> {
    Begin(B),
    /// Under this number.
    Wait(u64),
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For metrics.
    pub(crate) why: &'static str,
    /// When to come back.
    pub(crate) wait: Duration,
}

/// What becomes of a job that waited.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    Begin(T, Begun),
    Refuse(T, Refusal),
}

/// `T` is how the owner of a job is told.
pub(crate) struct Queue<T> {
    bounds: Bounds,
    lines: HashMap<Prefix, Line<T>>,
    /// The prefixes that wait, in the order of their turns.
    turns: VecDeque<Prefix>,
    waiting: usize,
    running: usize,
    running_cost: u32,
    /// Jobs per account, waiting and running.
    accounts: HashMap<AccountName, usize>,
    unit: Duration,
    next: u64,
}

/// What one prefix waits for.
struct Line<T> {
    /// Accounts in the order of their turns; none is empty.
    accounts: VecDeque<(AccountName, VecDeque<Job<T>>)>,
    cost: u32,
    deficit: u32,
    /// It is this line's turn, and the turn's quantum has been added.
    served: bool,
}

struct Job<T> {
    number: u64,
    cost: u32,
    until: Instant,
    owner: T,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            running: 0,
            running_cost: 0,
            accounts: HashMap::new(),
            unit: FIRST_GUESS,
            next: 0,
        }
    }

    /// A job comes. The second value is one that had to make room for it.
    pub(crate) fn offer(
        &mut self,
        ask: Ask,
        owner: T,
        now: Instant,
    ) -> (Answer<Begun>, Option<(T, Refusal)>) {
        match self.place(&ask, now) {
            Err(refusal) => (Answer::Refuse(refusal), None),
            Ok(()) if self.running < self.bounds.threads && self.waiting == 0 => {
                self.count_in(&ask.account);
                (Answer::Begin(self.begin(ask.account, ask.cost)), None)
            }
            Ok(()) => {
                let full = self.waiting >= self.bounds.waiting;
                let evicted = if full { self.evict() } else { None };
                (Answer::Wait(self.push(ask, owner)), evicted)
            }
        }
    }

    /// The client of a waiting job has gone.
    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        let found = self.lines.iter().find_map(|(prefix, line)| {
            let account =
                line.accounts.iter().position(|(_, jobs)| jobs.iter().any(|it| it.number == number))?;
            let job = line.accounts[account].1.iter().position(|it| it.number == number)?;
            Some((*prefix, account, job))
        });
        let removed = found.and_then(|(prefix, account, job)| self.remove(prefix, account, job));
        removed.is_some_and(|(account, _)| {
            self.count_out(&account);
            true
        })
    }

    /// Work has ended, after `took` if it was really done. Whose turn it is now is told.
    pub(crate) fn finish(&mut self, begun: Begun, took: Option<Duration>, now: Instant) -> Vec<Turn<T>> {
        let Begun { account, cost } = begun;
        self.running -= 1;
        self.running_cost -= cost;
        self.count_out(&account);
        if let Some(took) = took {
            let unit = took / cost.max(1);
            self.unit = (self.unit * (SMOOTHING - 1) + unit) / SMOOTHING;
        }
        let mut turns = Vec::new();
        while self.running < self.bounds.threads {
            let Some((account, job)) = self.take() else { break };
            if job.until <= now {
                self.count_out(&account);
                let wait = self.retry(self.backlog());
                turns.push(Turn::Refuse(job.owner, Refusal { why: "late", wait }));
                continue;
            }
            let begun = self.begin(account, job.cost);
            turns.push(Turn::Begin(job.owner, begun));
        }
        turns
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How long it would take to do all that waits or is at work.
    pub(crate) fn backlog(&self) -> Duration {
        let waiting: u32 = self.lines.values().map(|line| line.cost).sum();
        self.time_for(waiting + self.running_cost)
    }

    /// 0.0 idle to 1.0: the queue is full, or takes all the time that a client waits.
    pub(crate) fn load(&self, patience: Duration) -> f64 {
        if self.waiting == 0 {
            return 0.0;
        }
        let filled = self.waiting as f64 / self.bounds.waiting.max(1) as f64;
        filled.max(self.backlog().as_secs_f64() / patience.as_secs_f64().max(0.001)).min(1.0)
    }

    /// Whether a newcomer may wait, or even begin.
    fn place(&self, ask: &Ask, now: Instant) -> Result<(), Refusal> {
        let of_account = self.accounts.get(&ask.account).copied().unwrap_or_default();
        if !ask.trusted && of_account >= self.bounds.per_account {
            return Err(Refusal { why: "account", wait: self.retry(Duration::ZERO) });
        }
        if self.running < self.bounds.threads && self.waiting == 0 {
            return Ok(());
        }
        let (patience, wait) = (ask.until.saturating_duration_since(now), self.wait_of(ask));
        if wait > patience {
            return Err(Refusal { why: "wait", wait: self.retry(wait - patience) });
        }
        if self.waiting >= self.bounds.waiting {
            let most = self.lines.values().map(|line| line.cost).max().unwrap_or_default();
            let mine = self.lines.get(&ask.prefix).map_or(0, |line| line.cost) + ask.cost;
            if mine >= most {
                return Err(Refusal { why: "full", wait: self.retry(wait) });
            }
        }
        Ok(())
    }

    /// When a newcomer's turn would come: its own line as far as it is in front of it, and of each other line what
    /// has its turns meanwhile.
    fn wait_of(&self, ask: &Ask) -> Duration {
        let own = self.lines.get(&ask.prefix).map_or(0, |line| line.before(&ask.account, ask.cost));
        let others = self.lines.iter().filter(|(prefix, _)| **prefix != ask.prefix);
        let others: u32 = others.map(|(_, line)| line.cost.min(own + ask.cost + QUANTUM)).sum();
        self.time_for(own + others + self.running_cost)
    }

    fn time_for(&self, units: u32) -> Duration {
        self.unit * units / u32::try_from(self.bounds.threads).unwrap_or(u32::MAX).max(1)
    }

    fn retry(&self, wait: Duration) -> Duration {
        wait.clamp(RETRY.0, RETRY.1)
    }

    fn push(&mut self, ask: Ask, owner: T) -> u64 {
        self.count_in(&ask.account);
        self.waiting += 1;
        self.next += 1;
        let job = Job { number: self.next, cost: ask.cost, until: ask.until, owner };
        let line = self.lines.entry(ask.prefix).or_insert_with(|| {
            self.turns.push_back(ask.prefix);
            Line { accounts: VecDeque::new(), cost: 0, deficit: 0, served: false }
        });
        line.cost += ask.cost;
        match line.accounts.iter_mut().find(|(account, _)| *account == ask.account) {
            Some((_, jobs)) => jobs.push_back(job),
            None => line.accounts.push_back((ask.account, VecDeque::from([job]))),
        }
        self.next
    }

    /// The job whose turn it is.
    fn take(&mut self) -> Option<(AccountName, Job<T>)> {
        loop {
            let prefix = *self.turns.front()?;
            let line = self.lines.get_mut(&prefix)?;
            if !line.served {
                line.served = true;
                line.deficit += QUANTUM;
            }
            let cost = line.accounts.front()?.1.front()?.cost;
            if line.deficit >= cost {
                line.deficit -= cost;
                let taken = self.remove(prefix, 0, 0)?;
                if let Some(line) = self.lines.get_mut(&prefix)
                    && line.accounts.front().is_some_and(|(account, _)| *account == taken.0)
                {
                    line.accounts.rotate_left(1);
                }
                return Some(taken);
            }
            line.served = false;
            self.turns.rotate_left(1);
        }
    }

    /// Takes the last job of the account that asks for most, of the prefix that does.
    fn evict(&mut self) -> Option<(T, Refusal)> {
        let (prefix, line) = self.lines.iter().max_by_key(|(_, line)| line.cost)?;
        let (prefix, cost) = (*prefix, line.cost);
        let account = (0..line.accounts.len()).max_by_key(|at| line.accounts[*at].1.len())?;
        let last = line.accounts[account].1.len() - 1;
        let (account, job) = self.remove(prefix, account, last)?;
        self.count_out(&account);
        Some((job.owner, Refusal { why: "displaced", wait: self.retry(self.time_for(cost)) }))
    }

    /// Takes a job out of its line; the account still counts it.
    fn remove(&mut self, prefix: Prefix, account: usize, job: usize) -> Option<(AccountName, Job<T>)> {
        let line = self.lines.get_mut(&prefix)?;
        let (name, jobs) = line.accounts.get_mut(account)?;
        let (name, job) = (name.clone(), jobs.remove(job)?);
        if jobs.is_empty() {
            line.accounts.remove(account);
        }
        line.cost -= job.cost;
        self.waiting -= 1;
        if line.accounts.is_empty() {
            self.lines.remove(&prefix);
            self.turns.retain(|it| *it != prefix);
        }
        Some((name, job))
    }

    fn begin(&mut self, account: AccountName, cost: u32) -> Begun {
        self.running += 1;
        self.running_cost += cost;
        Begun { account, cost }
    }

    fn count_in(&mut self, account: &AccountName) {
        *self.accounts.entry(account.clone()).or_default() += 1;
    }

    fn count_out(&mut self, account: &AccountName) {
        if let Some(count) = self.accounts.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

impl<T> Line<T> {
    /// Units of this line that have their turn before a new job of that account and cost.
    fn before(&self, account: &AccountName, cost: u32) -> u32 {
        let sum = |jobs: &VecDeque<Job<T>>| jobs.iter().map(|job| job.cost).sum::<u32>();
        let mine = self.accounts.iter().find(|(name, _)| name == account).map_or(0, |(_, jobs)| sum(jobs));
        let others = self.accounts.iter().filter(|(name, _)| name != account);
        mine + others.map(|(_, jobs)| sum(jobs).min(mine + cost)).sum::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const LOGIN: u32 = 8;
    /// What [`LOGIN`] takes at the first guess.
    const TOOK: Duration = Duration::from_millis(1);

    fn bounds(threads: usize, waiting: usize) -> Bounds {
        Bounds { threads, waiting, per_account: usize::MAX }
    }

    fn prefix(number: u8) -> Prefix {
        Prefix::of([10, 0, number, 1].into())
    }

    fn ask(from: u8, account: &str, cost: u32, now: Instant) -> Ask {
        let account = AccountName::normalise(account).unwrap();
        Ask { prefix: prefix(from), account, trusted: false, cost, until: now + PATIENCE }
    }

    /// One thread that is busy, so that everything else waits.
    fn busy<T>(bounds: Bounds, owner: T, now: Instant) -> (Queue<T>, Begun) {
        let mut queue = Queue::new(bounds);
        match queue.offer(ask(250, "first", LOGIN, now), owner, now) {
            (Answer::Begin(begun), None) => (queue, begun),
            _ => panic!("an idle queue begins at once"),
        }
    }

    fn begun<T>(turns: Vec<Turn<T>>) -> Option<(T, Begun)> {
        let mut turns = turns;
        match turns.pop()? {
            Turn::Begin(owner, begun) => Some((owner, begun)),
            Turn::Refuse(..) => panic!("nobody is late"),
        }
    }

    #[test]
    fn prefixes_take_turns() {
        let now = Instant::now();
        let (mut queue, mut running) = busy(bounds(1, 100), 0, now);
        for _ in 0..20 {
            queue.offer(ask(1, "mallory", LOGIN, now), 1, now);
        }
        queue.offer(ask(2, "alice", LOGIN, now), 2, now);
        let mut order = Vec::new();
        while let Some((owner, next)) = begun(queue.finish(running, Some(TOOK), now)) {
            order.push(owner);
            running = next;
        }
        assert_eq!(order.len(), 21);
        assert!(order.iter().position(|owner| *owner == 2) <= Some(1), "{order:?}");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn accounts_of_a_prefix_take_turns() {
        let now = Instant::now();
        let (mut queue, mut running) = busy(bounds(1, 100), "first", now);
        for _ in 0..20 {
            queue.offer(ask(1, "mallory", LOGIN, now), "mallory", now);
        }
        queue.offer(ask(1, "alice", LOGIN, now), "alice", now);
        for expected in ["mallory", "alice", "mallory"] {
            let (owner, next) = begun(queue.finish(running, Some(TOOK), now)).unwrap();
            assert_eq!(owner, expected);
            running = next;
        }
    }

    #[test]
    fn who_would_wait_too_long_is_refused_at_once() {
        let now = Instant::now();
        let (mut queue, _running) = busy(bounds(1, 100_000), 0, now);
        // 5 s of patience, 1 ms a login.
        let accepted = (0..10_000)
            .take_while(|_| matches!(queue.offer(ask(1, "mallory", LOGIN, now), 1, now).0, Answer::Wait(_)))
            .count();
        assert!((4_900..=5_000).contains(&accepted), "{accepted}");
        let Answer::Refuse(refusal) = queue.offer(ask(1, "mallory", LOGIN, now), 1, now).0 else { panic!() };
        assert_eq!((refusal.why, refusal.wait), ("wait", RETRY.0));
        // Another prefix waits for its own turn only.
        assert!(matches!(queue.offer(ask(2, "alice", LOGIN, now), 2, now).0, Answer::Wait(_)));
    }

    #[test]
    fn a_full_queue_makes_room_at_the_cost_of_who_asks_for_most() {
        let now = Instant::now();
        let (mut queue, _running) = busy(bounds(1, 4), 0, now);
        for owner in 1..=4 {
            queue.offer(ask(1, "mallory", LOGIN, now), owner, now);
        }
        let (answer, evicted) = queue.offer(ask(1, "mallory", LOGIN, now), 5, now);
        assert!(matches!(answer, Answer::Refuse(Refusal { why: "full", .. })) && evicted.is_none());
        let (answer, evicted) = queue.offer(ask(2, "alice", LOGIN, now), 6, now);
        assert!(matches!(answer, Answer::Wait(_)));
        assert_eq!(evicted.map(|(owner, refusal)| (owner, refusal.why)), Some((4, "displaced")));
        assert_eq!(queue.waiting(), 4);
    }

    #[test]
    fn an_account_has_so_many_jobs_from_strangers() {
        let now = Instant::now();
        let (mut queue, running) = busy(Bounds { per_account: 3, ..bounds(1, 100) }, 0, now);
        for from in 1..=3 {
            assert!(matches!(queue.offer(ask(from, "alice", LOGIN, now), from, now).0, Answer::Wait(_)));
        }
        let (answer, _) = queue.offer(ask(4, "alice", LOGIN, now), 4, now);
        assert!(matches!(answer, Answer::Refuse(Refusal { why: "account", .. })));
        let trusted = Ask { trusted: true, ..ask(5, "alice", LOGIN, now) };
        let (Answer::Wait(place), _) = queue.offer(trusted, 5, now) else { panic!("the player is let in") };
        assert!(queue.withdraw(place) && !queue.withdraw(place));
        let (_, next) = begun(queue.finish(running, None, now)).unwrap();
        queue.finish(next, None, now);
        assert!(matches!(queue.offer(ask(4, "alice", LOGIN, now), 4, now).0, Answer::Wait(_)));
    }

    #[test]
    fn the_late_are_told_when_their_turn_comes() {
        let now = Instant::now();
        let (mut queue, running) = busy(bounds(1, 100), 0, now);
        queue.offer(ask(1, "alice", LOGIN, now), 1, now);
        let turns = queue.finish(running, Some(TOOK), now + PATIENCE);
        assert!(matches!(turns[..], [Turn::Refuse(1, Refusal { why: "late", .. })]));
        assert!(queue.accounts.is_empty() && queue.lines.is_empty() && queue.running == 0);
    }

    /// A flood from one prefix and honest players from others, on a virtual clock.
    #[test]
    fn a_flood_does_not_keep_others_waiting() {
        let start = Instant::now();
        let mut queue: Queue<(u8, Instant)> = Queue::new(bounds(1, 512));
        let mut running: Option<(Begun, Instant)> = None;
        let (mut worst, mut honest, mut refused) = (Duration::ZERO, 0, 0);
        for step in 0..20_000u32 {
            let now = start + Duration::from_micros(250) * step;
            if running.as_ref().is_some_and(|(_, end)| *end <= now) {
                let (done, _) = running.take().unwrap();
                for turn in queue.finish(done, Some(TOOK), now) {
                    match turn {
                        Turn::Begin((from, since), begun) => {
                            running = Some((begun, now + TOOK));
                            if from > 1 {
                                worst = worst.max(now - since);
                                honest += 1;
                            }
                        }
                        Turn::Refuse((from, _), _) => assert_eq!(from, 1),
                    }
                }
            }
            // Four times what the thread can do, and now and then one of ten others.
            let mut arrivals = vec![(1, "mallory".to_owned())];
            if step % 40 == 0 {
                arrivals.push((2 + (step / 40 % 10) as u8, format!("player{step}")));
            }
            for (from, account) in arrivals {
                let (answer, evicted) = queue.offer(ask(from, &account, LOGIN, now), (from, now), now);
                assert!(evicted.is_none_or(|((from, _), _)| from == 1));
                match answer {
                    Answer::Begin(begun) => running = Some((begun, now + TOOK)),
                    Answer::Wait(_) => {}
                    Answer::Refuse(_) => {
                        assert_eq!(from, 1, "only the flood is refused");
                        refused += 1;
                    }
                }
            }
        }
        assert!(honest >= 490 && refused > 10_000, "{honest} {refused}");
        assert!(worst < 20 * TOOK, "{worst:?}");
    }

    proptest! {
        /// Prefixes that always have work get the same share, whatever their jobs cost.
        #[test]
        fn shares_are_even(costs in prop::collection::vec(1u32..40, 2..8), work in 200u32..2_000) {
            let now = Instant::now();
            let (mut queue, mut running) = busy(bounds(1, usize::MAX), usize::MAX, now);
            for (from, cost) in costs.iter().enumerate() {
                for _ in 0..=work / cost {
                    let ask = Ask { until: now + PATIENCE * 1_000, ..ask(from as u8, "alice", *cost, now) };
                    queue.offer(ask, from, now);
                }
            }
            let mut done = BTreeMap::new();
            // As long as all of them still have work.
            while queue.lines.len() == costs.len() {
                let (owner, next) = begun(queue.finish(running, Some(TOOK), now)).unwrap();
                *done.entry(owner).or_insert(0) += costs[owner];
                running = next;
            }
            let (least, most) = (done.values().min().unwrap(), done.values().max().unwrap());
            prop_assert!(most - least <= QUANTUM + 2 * 40, "{done:?}");
        }

        /// Whatever comes, goes and ends: the books are even.
        #[test]
        fn the_books_are_even(steps in prop::collection::vec((0u8..4, 0u8..5, 0u8..3), 1..200)) {
            let now = Instant::now();
            let mut queue = Queue::new(Bounds { threads: 2, waiting: 8, per_account: 6 });
            let (mut running, mut places) = (Vec::new(), Vec::new());
            for (what, from, account) in steps {
                match what {
                    0 | 1 => match queue.offer(ask(from, &format!("name{account}"), 1 + u32::from(from), now), (), now).0 {
                        Answer::Begin(begun) => running.push(begun),
                        Answer::Wait(place) => places.push(place),
                        Answer::Refuse(refusal) => prop_assert!(refusal.wait >= RETRY.0),
                    },
                    2 => {
                        if let Some(begun) = running.pop() {
                            for turn in queue.finish(begun, Some(TOOK), now) {
                                if let Turn::Begin((), begun) = turn {
                                    running.push(begun);
                                }
                            }
                        }
                    }
                    _ => {
                        if let Some(place) = places.pop() {
                            queue.withdraw(place);
                        }
                    }
                }
                let jobs = queue.lines.values().flat_map(|line| &line.accounts).map(|(_, jobs)| jobs.len());
                prop_assert_eq!(jobs.sum::<usize>(), queue.waiting);
                prop_assert_eq!(queue.running, running.len());
                prop_assert!(queue.waiting <= 8 && queue.running <= 2);
                prop_assert_eq!(queue.accounts.values().sum::<usize>(), queue.waiting + queue.running);
                prop_assert_eq!(queue.turns.len(), queue.lines.len());
                prop_assert!(queue.waiting == 0 || queue.running == 2, "a thread is idle while jobs wait");
            }
        }
    }
}
