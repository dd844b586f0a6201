//! The fair queue for exponentiations. Pure: time is an argument.
//!
//! * Address prefixes (a /24, a /56) take turns, weighted by the cost of their jobs (deficit round robin, Shreedhar and
//!   Varghese 1996), so each prefix gets its share however many jobs it has. Within a prefix, accounts take turns.
//! * A job whose turn would come after its client stops waiting is refused at once, with a time to retry. The estimate
//!   uses the jobs ahead of it and the recent time per unit of work.
//! * A full queue drops a job of the prefix with the most cost, and there of the account with the most jobs. If that is
//!   the newcomer's own prefix, the newcomer is refused.
//! * Each account has a bound on its jobs from addresses that it has not used lately.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use shardkeep_auth::AccountName;
use shardkeep_daemon::Prefix;

/// Units of work that a prefix may do in one turn: a login of the usual group.
const QUANTUM: u32 = 10;
/// Time per unit before the first measurement.
const INITIAL_UNIT_TIME: Duration = Duration::from_micros(125);
/// The newest measurement has a weight of 1 / `SMOOTHING`.
const SMOOTHING: u32 = 16;
/// Shortest and longest time to retry after.
const RETRY_RANGE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Jobs that run at once.
    pub(crate) threads: usize,
    /// Jobs that wait. Overflow: see the module's documentation.
    pub(crate) waiting: usize,
    /// Jobs of one account, waiting or running. Overflow: the newcomer is refused.
    pub(crate) per_account: usize,
}

/// A job before it enters the queue.
#[derive(Debug, Clone)]
pub(crate) struct JobRequest {
    pub(crate) prefix: Prefix,
    pub(crate) account: AccountName,
    /// The account has used this address lately. The bound per account then does not apply, so that clients elsewhere
    /// cannot keep the player out.
    pub(crate) trusted: bool,
    /// Units of work.
    pub(crate) cost: u32,
    /// When the client stops waiting.
    pub(crate) until: Instant,
}

/// A running job; return it to [`Queue::finish`].
#[derive(Debug)]
pub(crate) struct StartedJob {
    account: AccountName,
    cost: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OfferResult<B> {
    Begin(B),
    /// The job has this number.
    Wait(u64),
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For metrics.
    pub(crate) reason: &'static str,
    /// When to retry.
    pub(crate) wait: Duration,
}

/// The outcome of a waiting job.
#[derive(Debug)]
pub(crate) enum Dispatch<T> {
    Begin(T, StartedJob),
    Refuse(T, Refusal),
}

/// `T` receives the outcome of a waiting job.
pub(crate) struct Queue<T> {
    bounds: Bounds,
    prefix_queues: HashMap<Prefix, PrefixQueue<T>>,
    /// The prefixes with waiting jobs, in the order of their turns.
    turns: VecDeque<Prefix>,
    waiting: usize,
    running: usize,
    running_cost: u32,
    /// Jobs per account, waiting and running.
    accounts: HashMap<AccountName, usize>,
    unit_time: Duration,
    next: u64,
}

/// The waiting jobs of one prefix.
struct PrefixQueue<T> {
    /// Accounts in the order of their turns; none is empty.
    accounts: VecDeque<(AccountName, VecDeque<Job<T>>)>,
    cost: u32,
    deficit: u32,
    /// It is this prefix's turn, and its quantum has been added.
    quantum_granted: bool,
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
            prefix_queues: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            running: 0,
            running_cost: 0,
            accounts: HashMap::new(),
            unit_time: INITIAL_UNIT_TIME,
            next: 0,
        }
    }

    /// Adds a job. The second value is a job that was dropped for it.
    pub(crate) fn offer(
        &mut self,
        job_request: JobRequest,
        owner: T,
        now: Instant,
    ) -> (OfferResult<StartedJob>, Option<(T, Refusal)>) {
        match self.admission(&job_request, now) {
            Err(refusal) => (OfferResult::Refuse(refusal), None),
            Ok(()) if self.running < self.bounds.threads && self.waiting == 0 => {
                self.count_job(&job_request.account);
                (OfferResult::Begin(self.begin(job_request.account, job_request.cost)), None)
            }
            Ok(()) => {
                let full = self.waiting >= self.bounds.waiting;
                let evicted = if full { self.evict() } else { None };
                (OfferResult::Wait(self.push(job_request, owner)), evicted)
            }
        }
    }

    /// Removes a waiting job whose client disconnected.
    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        let found = self.prefix_queues.iter().find_map(|(prefix, prefix_queue)| {
            let account = prefix_queue
                .accounts
                .iter()
                .position(|(_, jobs)| jobs.iter().any(|it| it.number == number))?;
            let job = prefix_queue.accounts[account].1.iter().position(|it| it.number == number)?;
            Some((*prefix, account, job))
        });
        let removed = found.and_then(|(prefix, account, job)| self.remove(prefix, account, job));
        removed.is_some_and(|(account, _)| {
            self.uncount_job(&account);
            true
        })
    }

    /// Ends a running job, and returns the jobs whose turn it is now. `took`: how long it ran, if it ran.
    pub(crate) fn finish(
        &mut self,
        started: StartedJob,
        took: Option<Duration>,
        now: Instant,
    ) -> Vec<Dispatch<T>> {
        let StartedJob { account, cost } = started;
        self.running -= 1;
        self.running_cost -= cost;
        self.uncount_job(&account);
        if let Some(took) = took {
            let unit_time = took / cost.max(1);
            self.unit_time = (self.unit_time * (SMOOTHING - 1) + unit_time) / SMOOTHING;
        }
        let mut turns = Vec::new();
        while self.running < self.bounds.threads {
            let Some((account, job)) = self.take() else { break };
            if job.until <= now {
                self.uncount_job(&account);
                let wait = self.retry_after(self.backlog());
                turns.push(Dispatch::Refuse(job.owner, Refusal { reason: "late", wait }));
                continue;
            }
            let started = self.begin(account, job.cost);
            turns.push(Dispatch::Begin(job.owner, started));
        }
        turns
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Time for all waiting and running jobs.
    pub(crate) fn backlog(&self) -> Duration {
        let waiting: u32 = self.prefix_queues.values().map(|prefix_queue| prefix_queue.cost).sum();
        self.time_for(waiting + self.running_cost)
    }

    /// 0.0 (idle) to 1.0 (the queue is full, or as long as a client waits).
    pub(crate) fn load(&self, max_wait: Duration) -> f64 {
        if self.waiting == 0 {
            return 0.0;
        }
        let filled = self.waiting as f64 / self.bounds.waiting.max(1) as f64;
        filled.max(self.backlog().as_secs_f64() / max_wait.as_secs_f64().max(0.001)).min(1.0)
    }

    /// Whether a new job may wait or begin.
    fn admission(&self, job_request: &JobRequest, now: Instant) -> Result<(), Refusal> {
        let of_account = self.accounts.get(&job_request.account).copied().unwrap_or_default();
        if !job_request.trusted && of_account >= self.bounds.per_account {
            return Err(Refusal { reason: "account", wait: self.retry_after(Duration::ZERO) });
        }
        if self.running < self.bounds.threads && self.waiting == 0 {
            return Ok(());
        }
        let (max_wait, wait) =
            (job_request.until.saturating_duration_since(now), self.estimated_wait(job_request));
        if wait > max_wait {
            return Err(Refusal { reason: "wait", wait: self.retry_after(wait - max_wait) });
        }
        if self.waiting >= self.bounds.waiting {
            let most =
                self.prefix_queues.values().map(|prefix_queue| prefix_queue.cost).max().unwrap_or_default();
            let own_cost =
                self.prefix_queues.get(&job_request.prefix).map_or(0, |prefix_queue| prefix_queue.cost)
                    + job_request.cost;
            if own_cost >= most {
                return Err(Refusal { reason: "full", wait: self.retry_after(wait) });
            }
        }
        Ok(())
    }

    /// The wait of a new job: it runs after the earlier jobs of its prefix, and after the jobs of other prefixes
    /// whose turns come before its own.
    fn estimated_wait(&self, job_request: &JobRequest) -> Duration {
        let own = self
            .prefix_queues
            .get(&job_request.prefix)
            .map_or(0, |prefix_queue| prefix_queue.cost_ahead(&job_request.account, job_request.cost));
        let others = self.prefix_queues.iter().filter(|(prefix, _)| **prefix != job_request.prefix);
        let others: u32 =
            others.map(|(_, prefix_queue)| prefix_queue.cost.min(own + job_request.cost + QUANTUM)).sum();
        self.time_for(own + others + self.running_cost)
    }

    fn time_for(&self, units: u32) -> Duration {
        self.unit_time * units / u32::try_from(self.bounds.threads).unwrap_or(u32::MAX).max(1)
    }

    fn retry_after(&self, wait: Duration) -> Duration {
        wait.clamp(RETRY_RANGE.0, RETRY_RANGE.1)
    }

    fn push(&mut self, job_request: JobRequest, owner: T) -> u64 {
        self.count_job(&job_request.account);
        self.waiting += 1;
        self.next += 1;
        let job = Job { number: self.next, cost: job_request.cost, until: job_request.until, owner };
        let prefix_queue = self.prefix_queues.entry(job_request.prefix).or_insert_with(|| {
            self.turns.push_back(job_request.prefix);
            PrefixQueue { accounts: VecDeque::new(), cost: 0, deficit: 0, quantum_granted: false }
        });
        prefix_queue.cost += job_request.cost;
        match prefix_queue.accounts.iter_mut().find(|(account, _)| *account == job_request.account) {
            Some((_, jobs)) => jobs.push_back(job),
            None => prefix_queue.accounts.push_back((job_request.account, VecDeque::from([job]))),
        }
        self.next
    }

    /// Removes the job whose turn it is.
    fn take(&mut self) -> Option<(AccountName, Job<T>)> {
        loop {
            let prefix = *self.turns.front()?;
            let prefix_queue = self.prefix_queues.get_mut(&prefix)?;
            if !prefix_queue.quantum_granted {
                prefix_queue.quantum_granted = true;
                prefix_queue.deficit += QUANTUM;
            }
            let cost = prefix_queue.accounts.front()?.1.front()?.cost;
            if prefix_queue.deficit >= cost {
                prefix_queue.deficit -= cost;
                let taken = self.remove(prefix, 0, 0)?;
                if let Some(prefix_queue) = self.prefix_queues.get_mut(&prefix)
                    && prefix_queue.accounts.front().is_some_and(|(account, _)| *account == taken.0)
                {
                    prefix_queue.accounts.rotate_left(1);
                }
                return Some(taken);
            }
            prefix_queue.quantum_granted = false;
            self.turns.rotate_left(1);
        }
    }

    /// Drops the last job of the account with the most jobs, in the prefix with the most cost.
    fn evict(&mut self) -> Option<(T, Refusal)> {
        let (prefix, prefix_queue) =
            self.prefix_queues.iter().max_by_key(|(_, prefix_queue)| prefix_queue.cost)?;
        let (prefix, cost) = (*prefix, prefix_queue.cost);
        let account = (0..prefix_queue.accounts.len()).max_by_key(|at| prefix_queue.accounts[*at].1.len())?;
        let last = prefix_queue.accounts[account].1.len() - 1;
        let (account, job) = self.remove(prefix, account, last)?;
        self.uncount_job(&account);
        Some((job.owner, Refusal { reason: "displaced", wait: self.retry_after(self.time_for(cost)) }))
    }

    /// Removes a waiting job; its account still counts it.
    fn remove(&mut self, prefix: Prefix, account: usize, job: usize) -> Option<(AccountName, Job<T>)> {
        let prefix_queue = self.prefix_queues.get_mut(&prefix)?;
        let (name, jobs) = prefix_queue.accounts.get_mut(account)?;
        let (name, job) = (name.clone(), jobs.remove(job)?);
        if jobs.is_empty() {
            prefix_queue.accounts.remove(account);
        }
        prefix_queue.cost -= job.cost;
        self.waiting -= 1;
        if prefix_queue.accounts.is_empty() {
            self.prefix_queues.remove(&prefix);
            self.turns.retain(|it| *it != prefix);
        }
        Some((name, job))
    }

    fn begin(&mut self, account: AccountName, cost: u32) -> StartedJob {
        self.running += 1;
        self.running_cost += cost;
        StartedJob { account, cost }
    }

    fn count_job(&mut self, account: &AccountName) {
        *self.accounts.entry(account.clone()).or_default() += 1;
    }

    fn uncount_job(&mut self, account: &AccountName) {
        if let Some(count) = self.accounts.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

impl<T> PrefixQueue<T> {
    /// Units of this prefix that have their turn before a new job of this account and cost.
    fn cost_ahead(&self, account: &AccountName, cost: u32) -> u32 {
        let sum = |jobs: &VecDeque<Job<T>>| jobs.iter().map(|job| job.cost).sum::<u32>();
        let own_cost =
            self.accounts.iter().find(|(name, _)| name == account).map_or(0, |(_, jobs)| sum(jobs));
        let others = self.accounts.iter().filter(|(name, _)| name != account);
        own_cost + others.map(|(_, jobs)| sum(jobs).min(own_cost + cost)).sum::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MAX_WAIT: Duration = Duration::from_secs(5);
    const LOGIN: u32 = 8;
    /// Time of [`LOGIN`] before the first measurement.
    const TOOK: Duration = Duration::from_millis(1);

    fn bounds(threads: usize, waiting: usize) -> Bounds {
        Bounds { threads, waiting, per_account: usize::MAX }
    }

    fn prefix(number: u8) -> Prefix {
        Prefix::of([10, 0, number, 1].into())
    }

    fn job_request(from: u8, account: &str, cost: u32, now: Instant) -> JobRequest {
        let account = AccountName::normalise(account).unwrap();
        JobRequest { prefix: prefix(from), account, trusted: false, cost, until: now + MAX_WAIT }
    }

    /// A queue whose only thread is busy, so that every new job waits.
    fn busy<T>(bounds: Bounds, owner: T, now: Instant) -> (Queue<T>, StartedJob) {
        let mut queue = Queue::new(bounds);
        match queue.offer(job_request(250, "first", LOGIN, now), owner, now) {
            (OfferResult::Begin(started), None) => (queue, started),
            _ => panic!("an idle queue begins at once"),
        }
    }

    fn started<T>(turns: Vec<Dispatch<T>>) -> Option<(T, StartedJob)> {
        let mut turns = turns;
        match turns.pop()? {
            Dispatch::Begin(owner, started) => Some((owner, started)),
            Dispatch::Refuse(..) => panic!("nobody is late"),
        }
    }

    #[test]
    fn queue_serves_prefixes_in_turn() {
        let now = Instant::now();
        let (mut queue, mut running) = busy(bounds(1, 100), 0, now);
        for _ in 0..20 {
            queue.offer(job_request(1, "mallory", LOGIN, now), 1, now);
        }
        queue.offer(job_request(2, "alice", LOGIN, now), 2, now);
        let mut order = Vec::new();
        while let Some((owner, next)) = started(queue.finish(running, Some(TOOK), now)) {
            order.push(owner);
            running = next;
        }
        assert_eq!(order.len(), 21);
        assert!(order.iter().position(|owner| *owner == 2) <= Some(1), "{order:?}");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn queue_serves_accounts_of_a_prefix_in_turn() {
        let now = Instant::now();
        let (mut queue, mut running) = busy(bounds(1, 100), "first", now);
        for _ in 0..20 {
            queue.offer(job_request(1, "mallory", LOGIN, now), "mallory", now);
        }
        queue.offer(job_request(1, "alice", LOGIN, now), "alice", now);
        for expected in ["mallory", "alice", "mallory"] {
            let (owner, next) = started(queue.finish(running, Some(TOOK), now)).unwrap();
            assert_eq!(owner, expected);
            running = next;
        }
    }

    #[test]
    fn job_with_too_long_estimated_wait_is_refused() {
        let now = Instant::now();
        let (mut queue, _running) = busy(bounds(1, 100_000), 0, now);
        // Clients wait for 5 s, and a login takes 1 ms.
        let accepted = (0..10_000)
            .take_while(|_| {
                matches!(queue.offer(job_request(1, "mallory", LOGIN, now), 1, now).0, OfferResult::Wait(_))
            })
            .count();
        assert!((4_900..=5_000).contains(&accepted), "{accepted}");
        let OfferResult::Refuse(refusal) = queue.offer(job_request(1, "mallory", LOGIN, now), 1, now).0
        else {
            panic!()
        };
        assert_eq!((refusal.reason, refusal.wait), ("wait", RETRY_RANGE.0));
        // A job of another prefix waits for one turn only.
        assert!(matches!(queue.offer(job_request(2, "alice", LOGIN, now), 2, now).0, OfferResult::Wait(_)));
    }

    #[test]
    fn full_queue_evicts_job_of_largest_prefix() {
        let now = Instant::now();
        let (mut queue, _running) = busy(bounds(1, 4), 0, now);
        for owner in 1..=4 {
            queue.offer(job_request(1, "mallory", LOGIN, now), owner, now);
        }
        let (answer, evicted) = queue.offer(job_request(1, "mallory", LOGIN, now), 5, now);
        assert!(matches!(answer, OfferResult::Refuse(Refusal { reason: "full", .. })) && evicted.is_none());
        let (answer, evicted) = queue.offer(job_request(2, "alice", LOGIN, now), 6, now);
        assert!(matches!(answer, OfferResult::Wait(_)));
        assert_eq!(evicted.map(|(owner, refusal)| (owner, refusal.reason)), Some((4, "displaced")));
        assert_eq!(queue.waiting(), 4);
    }

    #[test]
    fn untrusted_jobs_per_account_are_bounded() {
        let now = Instant::now();
        let (mut queue, running) = busy(Bounds { per_account: 3, ..bounds(1, 100) }, 0, now);
        for from in 1..=3 {
            assert!(matches!(
                queue.offer(job_request(from, "alice", LOGIN, now), from, now).0,
                OfferResult::Wait(_)
            ));
        }
        let (answer, _) = queue.offer(job_request(4, "alice", LOGIN, now), 4, now);
        assert!(matches!(answer, OfferResult::Refuse(Refusal { reason: "account", .. })));
        let trusted = JobRequest { trusted: true, ..job_request(5, "alice", LOGIN, now) };
        let (OfferResult::Wait(admission), _) = queue.offer(trusted, 5, now) else {
            panic!("the player is let in")
        };
        assert!(queue.withdraw(admission) && !queue.withdraw(admission));
        let (_, next) = started(queue.finish(running, None, now)).unwrap();
        queue.finish(next, None, now);
        assert!(matches!(queue.offer(job_request(4, "alice", LOGIN, now), 4, now).0, OfferResult::Wait(_)));
    }

    #[test]
    fn expired_job_is_refused_when_its_turn_comes() {
        let now = Instant::now();
        let (mut queue, running) = busy(bounds(1, 100), 0, now);
        queue.offer(job_request(1, "alice", LOGIN, now), 1, now);
        let turns = queue.finish(running, Some(TOOK), now + MAX_WAIT);
        assert!(matches!(turns[..], [Dispatch::Refuse(1, Refusal { reason: "late", .. })]));
        assert!(queue.accounts.is_empty() && queue.prefix_queues.is_empty() && queue.running == 0);
    }

    /// A flood from one prefix and logins from other prefixes, on a virtual clock.
    #[test]
    fn flood_from_one_prefix_does_not_delay_others() {
        let start = Instant::now();
        let mut queue: Queue<(u8, Instant)> = Queue::new(bounds(1, 512));
        let mut running: Option<(StartedJob, Instant)> = None;
        let (mut worst, mut honest, mut refused) = (Duration::ZERO, 0, 0);
        for step in 0..20_000u32 {
            let now = start + Duration::from_micros(250) * step;
            if running.as_ref().is_some_and(|(_, end)| *end <= now) {
                let (done, _) = running.take().unwrap();
                for dispatch in queue.finish(done, Some(TOOK), now) {
                    match dispatch {
                        Dispatch::Begin((from, since), started) => {
                            running = Some((started, now + TOOK));
                            if from > 1 {
                                worst = worst.max(now - since);
                                honest += 1;
                            }
                        }
                        Dispatch::Refuse((from, _), _) => assert_eq!(from, 1),
                    }
                }
            }
            // Four times the capacity of the thread, and sometimes a job of one of ten other prefixes.
            let mut arrivals = vec![(1, "mallory".to_owned())];
            if step % 40 == 0 {
                arrivals.push((2 + (step / 40 % 10) as u8, format!("player{step}")));
            }
            for (from, account) in arrivals {
                let (answer, evicted) =
                    queue.offer(job_request(from, &account, LOGIN, now), (from, now), now);
                assert!(evicted.is_none_or(|((from, _), _)| from == 1));
                match answer {
                    OfferResult::Begin(started) => running = Some((started, now + TOOK)),
                    OfferResult::Wait(_) => {}
                    OfferResult::Refuse(_) => {
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
        /// Prefixes that always have work get the same share, independent of the cost of their jobs.
        #[test]
        fn prefixes_get_equal_shares_of_work(costs in prop::collection::vec(1u32..40, 2..8), work in 200u32..2_000) {
            let now = Instant::now();
            let (mut queue, mut running) = busy(bounds(1, usize::MAX), usize::MAX, now);
            for (from, cost) in costs.iter().enumerate() {
                for _ in 0..=work / cost {
                    let job_request = JobRequest { until: now + MAX_WAIT * 1_000, ..job_request(from as u8, "alice", *cost, now) };
                    queue.offer(job_request, from, now);
                }
            }
            let mut done = BTreeMap::new();
            // Measured while every prefix still has jobs.
            while queue.prefix_queues.len() == costs.len() {
                let (owner, next) = started(queue.finish(running, Some(TOOK), now)).unwrap();
                *done.entry(owner).or_insert(0) += costs[owner];
                running = next;
            }
            let (least, most) = (done.values().min().unwrap(), done.values().max().unwrap());
            prop_assert!(most - least <= QUANTUM + 2 * 40, "{done:?}");
        }

        /// After any sequence of offers, withdrawals and ends, the counters agree with the jobs.
        #[test]
        fn queue_counters_stay_consistent(steps in prop::collection::vec((0u8..4, 0u8..5, 0u8..3), 1..200)) {
            let now = Instant::now();
            let mut queue = Queue::new(Bounds { threads: 2, waiting: 8, per_account: 6 });
            let (mut running, mut admissions) = (Vec::new(), Vec::new());
            for (what, from, account) in steps {
                match what {
                    0 | 1 => match queue.offer(job_request(from, &format!("name{account}"), 1 + u32::from(from), now), (), now).0 {
                        OfferResult::Begin(started) => running.push(started),
                        OfferResult::Wait(admission) => admissions.push(admission),
                        OfferResult::Refuse(refusal) => prop_assert!(refusal.wait >= RETRY_RANGE.0),
                    },
                    2 => {
                        if let Some(started) = running.pop() {
                            for dispatch in queue.finish(started, Some(TOOK), now) {
                                if let Dispatch::Begin((), started) = dispatch {
                                    running.push(started);
                                }
                            }
                        }
                    }
                    _ => {
                        if let Some(admission) = admissions.pop() {
                            queue.withdraw(admission);
                        }
                    }
                }
                let jobs = queue.prefix_queues.values().flat_map(|prefix_queue| &prefix_queue.accounts).map(|(_, jobs)| jobs.len());
                prop_assert_eq!(jobs.sum::<usize>(), queue.waiting);
                prop_assert_eq!(queue.running, running.len());
                prop_assert!(queue.waiting <= 8 && queue.running <= 2);
                prop_assert_eq!(queue.accounts.values().sum::<usize>(), queue.waiting + queue.running);
                prop_assert_eq!(queue.turns.len(), queue.prefix_queues.len());
                prop_assert!(queue.waiting == 0 || queue.running == 2, "a thread is idle while jobs wait");
            }
        }
    }
}
