//! Calls that carry many questions. What is asked while a call is under way, or soon after one has begun, goes together
//! with the next: in a storm a call for each question would cost more than its answer. After a quiet moment nothing waits.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use crate::metrics::{GATHERED_CALLS, GATHERED_QUESTIONS, GATHERED_UNANSWERED};

/// Places that are remembered without a reason, before those that have been quiet are looked for.
const PLACES: usize = 64;

/// How much goes together, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Questions in one call.
    pub most: usize,
    /// Least time between the beginnings of two calls to one place.
    pub interval: Duration,
    /// Questions that wait for one place's next calls, of those who still want an answer. Overflow: one more is refused
    /// at once, and counted.
    pub waiting: usize,
    /// How long a call may take, and beside it a question's wait for its call.
    pub deadline: Duration,
}

/// Why there is no answer, if not for the call itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("no answer in time")]
    Late,
    #[error("too many questions wait already")]
    Full,
    #[error("the question was left out of the answer")]
    LeftOut,
    #[error("the call broke off")]
    BrokenOff,
}

impl Unanswered {
    fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Full => "full",
            Self::LeftOut => "left_out",
            Self::BrokenOff => "broken_off",
        }
    }
}

impl From<Unanswered> for Status {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Late => Self::deadline_exceeded(why.to_string()),
            Unanswered::Full => Self::resource_exhausted(why.to_string()),
            Unanswered::LeftOut => Self::internal(why.to_string()),
            Unanswered::BrokenOff => Self::unavailable(why.to_string()),
        }
    }
}

/// What a call comes to: an answer for each question, in their order; or the same error for all.
pub type Calling<A, E> = Pin<Box<dyn Future<Output = Result<Vec<A>, E>> + Send>>;

/// Gathers questions by the place `P` that answers them. Clones share their calls.
pub struct Gather<P, Q, A, E>(Arc<Inner<P, Q, A, E>>);

impl<P, Q, A, E> Clone for Gather<P, Q, A, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<P, Q, A, E> {
    /// In metrics.
    name: &'static str,
    pace: Pace,
    call: Box<dyn Fn(P, Vec<Q>) -> Calling<A, E> + Send + Sync>,
    places: Mutex<HashMap<P, Place<Q, A, E>>>,
}

struct Place<Q, A, E> {
    /// Bound and overflow: [`Pace::waiting`]. Those who have gone are no more than half of it, beside a few.
    queue: Vec<Waiting<Q, A, E>>,
    /// At this length those who have gone are looked for.
    sweep_at: usize,
    /// A task calls until the queue is empty.
    served: bool,
    /// When the last call began.
    begun: Option<Instant>,
}

struct Waiting<Q, A, E> {
    question: Q,
    answer: oneshot::Sender<Result<A, E>>,
}

impl<P, Q, A, E> Gather<P, Q, A, E>
where
    P: Clone + Eq + Hash + Send + 'static,
    Q: Send + 'static,
    A: Send + 'static,
    E: Clone + From<Unanswered> + Send + 'static,
{
    /// Asks by this call, which may be dropped when its deadline has passed, and never because nobody waits for it any
    /// more.
    pub fn new(
        name: &'static str,
        pace: Pace,
        call: impl Fn(P, Vec<Q>) -> Calling<A, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { name, pace, call: Box::new(call), places: Mutex::default() }))
    }

    /// The answer to this question. Who stops waiting while the call is under way has asked all the same.
    ///
    /// # Errors
    /// The call's own, or an [`Unanswered`].
    pub async fn ask(&self, place: &P, question: Q) -> Result<A, E> {
        let (answer, answered) = oneshot::channel();
        self.wait(place, Waiting { question, answer }).map_err(|why| self.0.failed(why))?;
        // For a call under way, and the own one.
        match timeout(2 * self.0.pace.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.0.failed(Unanswered::BrokenOff)),
            Err(_) => Err(self.0.failed(Unanswered::Late)),
        }
    }

    fn wait(&self, place: &P, waiting: Waiting<Q, A, E>) -> Result<(), Unanswered> {
        let mut places = self.0.places.lock();
        let there = match places.get_mut(place) {
            Some(there) => there,
            None => {
                self.0.forget_quiet(&mut places);
                let there =
                    Place { queue: Vec::new(), sweep_at: self.0.pace.most, served: false, begun: None };
                places.entry(place.clone()).or_insert(there)
            }
        };
        // During a long call many may come and go.
        if there.queue.len() >= there.sweep_at.min(self.0.pace.waiting) {
            there.queue.retain(|waiting| !waiting.answer.is_closed());
            there.sweep_at = (2 * there.queue.len()).max(self.0.pace.most);
        }
        if there.queue.len() >= self.0.pace.waiting {
            return Err(Unanswered::Full);
        }
        there.queue.push(waiting);
        if !there.served {
            there.served = true;
            let served = Served { inner: self.0.clone(), place: place.clone(), over: false };
            tokio::spawn(served.serve());
        }
        Ok(())
    }
}

impl<P: Eq + Hash, Q, A, E: From<Unanswered>> Inner<P, Q, A, E> {
    fn failed(&self, why: Unanswered) -> E {
        counter!(GATHERED_UNANSWERED, "what" => self.name, "why" => why.label()).increment(1);
        why.into()
    }

    fn forget_quiet(&self, places: &mut HashMap<P, Place<Q, A, E>>) {
        if places.len() >= PLACES {
            let quiet = |it: &Place<Q, A, E>| it.begun.is_none_or(|at| at.elapsed() >= self.pace.interval);
            places.retain(|_, it| it.served || !quiet(it));
        }
    }
}

/// A place that is being served, until this is dropped.
struct Served<P: Eq + Hash, Q, A, E> {
    inner: Arc<Inner<P, Q, A, E>>,
    place: P,
    /// Somebody else may serve it already.
    over: bool,
}

impl<P: Clone + Eq + Hash, Q, A, E: Clone + From<Unanswered>> Served<P, Q, A, E> {
    /// Calls until nothing waits.
    async fn serve(mut self) {
        while let Some(earliest) = self.next_call() {
            if earliest > Instant::now() {
                tokio::time::sleep_until(earliest.into()).await;
            }
            let batch = self.take();
            if batch.is_empty() {
                continue;
            }
            let (questions, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|it| (it.question, it.answer)).unzip();
            counter!(GATHERED_CALLS, "what" => self.inner.name).increment(1);
            counter!(GATHERED_QUESTIONS, "what" => self.inner.name).increment(questions.len() as u64);
            let call = (self.inner.call)(self.place.clone(), questions);
            let called = timeout(self.inner.pace.deadline, call).await;
            let mut called = called.unwrap_or_else(|_| Err(Unanswered::Late.into())).map(Vec::into_iter);
            for answer in answers {
                let outcome = match &mut called {
                    Ok(given) => given.next().ok_or_else(|| self.inner.failed(Unanswered::LeftOut)),
                    Err(error) => Err(error.clone()),
                };
                // Fails when its asker has gone.
                let _ = answer.send(outcome);
            }
        }
    }

    /// When the next call may begin; `None`: nothing waits, and this place is not served any more.
    fn next_call(&mut self) -> Option<Instant> {
        let mut places = self.inner.places.lock();
        let place = places.get_mut(&self.place)?;
        if place.queue.is_empty() {
            (place.served, self.over) = (false, true);
            return None;
        }
        Some(place.begun.map_or_else(Instant::now, |begun| begun + self.inner.pace.interval))
    }

    /// What goes with this call: nothing of those who have gone.
    fn take(&self) -> Vec<Waiting<Q, A, E>> {
        let mut places = self.inner.places.lock();
        let Some(place) = places.get_mut(&self.place) else { return Vec::new() };
        place.queue.retain(|waiting| !waiting.answer.is_closed());
        let later = place.queue.split_off(place.queue.len().min(self.inner.pace.most));
        let batch = std::mem::replace(&mut place.queue, later);
        if !batch.is_empty() {
            place.begun = Some(Instant::now());
        }
        batch
    }
}

impl<P: Eq + Hash, Q, A, E> Drop for Served<P, Q, A, E> {
    fn drop(&mut self) {
        // A call has panicked: those who wait learn it now, and the next one is served anew.
        if !self.over {
            self.inner.places.lock().remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Longest wait for something that should happen at once, on a busy machine.
    const SOON: Duration = Duration::from_secs(30);
    const PACE: Pace =
        Pace { most: 3, interval: Duration::ZERO, waiting: 100, deadline: Duration::from_secs(60) };

    type Asked = (&'static str, Vec<u32>, oneshot::Sender<Result<Vec<u32>, Unanswered>>);

    /// Questions are numbers; whoever holds the receiver answers.
    fn gather(pace: Pace) -> (Gather<&'static str, u32, u32, Unanswered>, mpsc::UnboundedReceiver<Asked>) {
        let (calls, called) = mpsc::unbounded_channel();
        let gather = Gather::new("numbers", pace, move |place, questions| {
            let (answer, answered) = oneshot::channel();
            calls.send((place, questions, answer)).unwrap();
            Box::pin(async { answered.await.expect("the test answers") })
        });
        (gather, called)
    }

    async fn next(called: &mut mpsc::UnboundedReceiver<Asked>) -> Asked {
        timeout(SOON, called.recv()).await.expect("a call").unwrap()
    }

    /// Asks in a task of its own.
    fn asks(
        gather: &Gather<&'static str, u32, u32, Unanswered>,
        place: &'static str,
        question: u32,
    ) -> tokio::task::JoinHandle<Result<u32, Unanswered>> {
        let gather = gather.clone();
        tokio::spawn(async move { gather.ask(&place, question).await })
    }

    async fn until(condition: impl Fn() -> bool) {
        timeout(SOON, async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it happens");
    }

    fn waiting(gather: &Gather<&'static str, u32, u32, Unanswered>, place: &'static str) -> usize {
        gather.0.places.lock().get(place).map_or(0, |place| place.queue.len())
    }

    /// Asks these one after the other, so that their order is known.
    async fn ask_all(
        gather: &Gather<&'static str, u32, u32, Unanswered>,
        questions: &[u32],
    ) -> Vec<tokio::task::JoinHandle<Result<u32, Unanswered>>> {
        let mut asking = Vec::new();
        for question in questions {
            let before = waiting(gather, "here");
            asking.push(asks(gather, "here", *question));
            until(|| waiting(gather, "here") > before).await;
        }
        asking
    }

    #[tokio::test]
    async fn what_is_asked_during_a_call_goes_with_the_next_ones_in_order() {
        let (gather, mut called) = gather(PACE);
        let first = asks(&gather, "here", 1);
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [1], "an idle moment waits for nobody");
        let others = ask_all(&gather, &[2, 3, 4, 5]).await;
        answer.send(Ok(vec![10])).unwrap();
        assert_eq!(first.await.unwrap(), Ok(10));
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [2, 3, 4], "at most so many");
        answer.send(Ok(vec![20, 30, 40])).unwrap();
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [5]);
        answer.send(Ok(vec![50])).unwrap();
        let mut answers = Vec::new();
        for other in others {
            answers.push(other.await.unwrap().unwrap());
        }
        assert_eq!(answers, [20, 30, 40, 50]);
    }

    #[tokio::test]
    async fn places_do_not_wait_for_each_other() {
        let (gather, mut called) = gather(Pace { interval: Duration::from_secs(3_600), ..PACE });
        let (here, there) = (asks(&gather, "here", 1), asks(&gather, "there", 2));
        let mut calls = [next(&mut called).await, next(&mut called).await];
        calls.sort_by_key(|(place, ..)| *place);
        let places: Vec<_> = calls.iter().map(|(place, questions, _)| (*place, questions.clone())).collect();
        assert_eq!(places, [("here", vec![1]), ("there", vec![2])]);
        for (_, questions, answer) in calls {
            answer.send(Ok(questions)).unwrap();
        }
        assert_eq!((here.await.unwrap(), there.await.unwrap()), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn calls_keep_their_distance_and_gather_meanwhile() {
        let (gather, mut called) = gather(Pace { interval: Duration::from_millis(300), ..PACE });
        let begun = Instant::now();
        let first = asks(&gather, "here", 1);
        next(&mut called).await.2.send(Ok(vec![1])).unwrap();
        first.await.unwrap().unwrap();
        let others = [asks(&gather, "here", 2), asks(&gather, "here", 3)];
        let mut asked: Vec<u32> = Vec::new();
        while asked.len() < others.len() {
            let (_, questions, answer) = next(&mut called).await;
            assert!(begun.elapsed() >= Duration::from_millis(300));
            asked.extend(&questions);
            answer.send(Ok(questions)).unwrap();
        }
        asked.sort_unstable();
        assert_eq!(asked, [2, 3]);
        for other in others {
            other.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_and_the_next_call_is_made() {
        let (gather, mut called) = gather(PACE);
        let first = asks(&gather, "here", 1);
        let (.., answer) = next(&mut called).await;
        let others = ask_all(&gather, &[2, 3]).await;
        answer.send(Err(Unanswered::Full)).unwrap();
        assert_eq!(first.await.unwrap(), Err(Unanswered::Full));
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [2, 3]);
        answer.send(Ok(vec![20])).unwrap();
        let [second, third] = <[_; 2]>::try_from(others).unwrap();
        assert_eq!(second.await.unwrap(), Ok(20));
        assert_eq!(third.await.unwrap(), Err(Unanswered::LeftOut));
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_ends_nothing_but_itself() {
        let (gather, mut called) = gather(PACE);
        let first = asks(&gather, "here", 1);
        let (.., answer) = next(&mut called).await;
        let others = ask_all(&gather, &[2]).await;
        // The call panics for want of an answer.
        drop(answer);
        assert_eq!(first.await.unwrap(), Err(Unanswered::BrokenOff));
        for other in others {
            assert_eq!(other.await.unwrap(), Err(Unanswered::BrokenOff));
        }
        let again = asks(&gather, "here", 3);
        let (_, questions, answer) = next(&mut called).await;
        answer.send(Ok(questions)).unwrap();
        assert_eq!(again.await.unwrap(), Ok(3));
    }

    #[tokio::test]
    async fn who_goes_while_waiting_is_not_asked_for() {
        let (gather, mut called) = gather(PACE);
        let first = asks(&gather, "here", 1);
        let (.., answer) = next(&mut called).await;
        let mut others = ask_all(&gather, &[2, 3]).await;
        let gone = others.remove(0);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        // Who goes while the call is under way spoils nothing.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        answer.send(Ok(vec![1])).unwrap();
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [3]);
        answer.send(Ok(questions)).unwrap();
        assert_eq!(others.remove(0).await.unwrap(), Ok(3));
    }

    #[tokio::test]
    async fn one_too_many_is_refused_at_once() {
        let (gather, mut called) = gather(Pace { waiting: 2, ..PACE });
        let _first = asks(&gather, "here", 1);
        let (.., answer) = next(&mut called).await;
        let others = ask_all(&gather, &[2, 3]).await;
        assert_eq!(gather.ask(&"here", 4).await, Err(Unanswered::Full));
        answer.send(Ok(vec![1])).unwrap();
        let (_, questions, answer) = next(&mut called).await;
        answer.send(Ok(questions)).unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn who_has_gone_takes_no_room() {
        let (gather, mut called) = gather(Pace { waiting: 20, ..PACE });
        let first = asks(&gather, "here", 1);
        let (.., answer) = next(&mut called).await;
        // Many come and go while the first call is under way.
        for question in 0..1_000 {
            let asking = std::pin::pin!(gather.ask(&"here", question));
            assert!(futures::poll!(asking).is_pending(), "there is room");
            assert!(waiting(&gather, "here") <= 2 * PACE.most);
        }
        let stays = ask_all(&gather, &[7]).await;
        answer.send(Ok(vec![1])).unwrap();
        first.await.unwrap().unwrap();
        let (_, questions, answer) = next(&mut called).await;
        assert_eq!(questions, [7]);
        answer.send(Ok(questions)).unwrap();
        for stay in stays {
            assert_eq!(stay.await.unwrap(), Ok(7));
        }
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_given_up() {
        let (gather, mut called) = gather(Pace { deadline: Duration::from_millis(20), ..PACE });
        let late = asks(&gather, "here", 1);
        let (.., kept) = next(&mut called).await;
        assert_eq!(late.await.unwrap(), Err(Unanswered::Late));
        let again = asks(&gather, "here", 2);
        let (_, questions, answer) = next(&mut called).await;
        // On a machine that is busy enough this one is late as well.
        let _ = answer.send(Ok(questions));
        assert!(matches!(again.await.unwrap(), Ok(2) | Err(Unanswered::Late)));
        drop(kept);
    }

    #[tokio::test]
    async fn places_that_are_quiet_are_forgotten() {
        let gather: Gather<usize, u32, u32, Unanswered> =
            Gather::new("numbers", PACE, |_, questions| Box::pin(async { Ok(questions) }));
        for place in 0..10 * PLACES {
            assert_eq!(gather.ask(&place, 7).await, Ok(7));
        }
        assert!(gather.0.places.lock().len() <= PLACES + 1);
    }
}
