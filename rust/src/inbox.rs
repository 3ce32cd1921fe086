//! What one run has delivered and its reader has not taken yet: bounded, with credits for the other side.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::limits::Permits;
use crate::metrics::{Metrics, Outcome};

/// What a run's reader asks of whoever carries the run out. Neither call waits.
pub(crate) trait Control: Send + Sync {
    /// There is room for `n` more events of the run.
    fn credit(&self, run: u64, n: usize);
    /// Nobody wants the run any more.
    fn cancel(&self, run: u64);
}

/// The meeting point of a run's producer and its reader.
///
/// What the producer may still send, together with what waits here, never exceeds the bound. The run's permits live
/// here until the producer says that the work has ended, whether or not a reader is left.
pub(crate) struct Inbox {
    id: u64,
    buffer: Option<Buffer>,
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<StreamEvent>,
    bound: usize,
    /// Events that the producer may still send.
    granted: usize,
    full_since: Option<Instant>,
    end: Option<Result<()>>,
    over: bool,
    unwanted: Option<Outcome>,
    waker: Option<Waker>,
    permits: Option<Permits>,
    started: Instant,
    first_token: Option<Instant>,
    tokens: u64,
    predicted: bool,
}

impl Inbox {
    /// `buffer` is `None` for a run of which only the result is wanted.
    pub(crate) fn new(
        id: u64,
        buffer: Option<Buffer>,
        control: Arc<dyn Control>,
        metrics: Arc<Metrics>,
        permits: Permits,
    ) -> Arc<Self> {
        metrics.begin();
        let bound = buffer.map_or(usize::MAX, Buffer::start);
        let state = State {
            queue: VecDeque::new(),
            bound,
            granted: bound,
            full_since: None,
            end: None,
            over: false,
            unwanted: None,
            waker: None,
            permits: Some(permits),
            started: Instant::now(),
            first_token: None,
            tokens: 0,
            predicted: false,
        };
        Arc::new(Self { id, buffer, control, metrics, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The producer's side.

    /// How many events may be sent before the first [`Control::credit`]; `None` is no bound.
    pub(crate) fn first_credits(&self) -> Option<usize> {
        self.buffer.map(Buffer::start)
    }

    /// Take over what the run has produced.
    pub(crate) fn deliver(&self, events: impl IntoIterator<Item = StreamEvent>) {
        let mut state = self.state();
        if state.unwanted.is_some() || state.over {
            return;
        }
        let before = state.queue.len();
        for event in events {
            match event {
                StreamEvent::Token(_) => {
                    state.tokens += 1;
                    state.first_token.get_or_insert_with(Instant::now);
                }
                StreamEvent::Prediction(_) => state.predicted = true,
                _ => {}
            }
            state.queue.push_back(event);
        }
        if self.buffer.is_some() {
            let arrived = state.queue.len() - before;
            state.granted = state.granted.saturating_sub(arrived);
            if state.granted == 0 && state.full_since.is_none() {
                state.full_since = Some(Instant::now());
            }
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// The work has ended: give the permits back and tell the reader. The first call counts.
    pub(crate) fn finish(&self, end: Result<()>) {
        let mut state = self.state();
        if state.over {
            return;
        }
        state.over = true;
        let outcome = state.unwanted.unwrap_or_else(|| Outcome::of(&end));
        let (started, first, tokens) = (state.started, state.first_token, state.tokens);
        if state.unwanted.is_none() {
            state.end = Some(end);
        }
        let (permits, waker) = (state.permits.take(), state.waker.take());
        drop(state);
        drop(permits);
        self.metrics.end(outcome, started, first, tokens);
        wake(waker);
    }

    // The reader's side.

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamEvent>>> {
        let mut state = self.state();
        if let Some(event) = state.queue.pop_front() {
            let credit = self.owed(&mut state);
            drop(state);
            if credit > 0 {
                self.control.credit(self.id, credit);
            }
            return Poll::Ready(Some(Ok(event)));
        }
        match state.end.take() {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None if state.over || state.unwanted.is_some() => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Room that the producer does not know of yet, once it is worth a message.
    fn owed(&self, state: &mut State) -> usize {
        let Some(buffer) = self.buffer else { return 0 };
        if state.over {
            return 0;
        }
        let room = state.bound.saturating_sub(state.granted + state.queue.len());
        if room < state.bound.div_ceil(2) {
            return 0;
        }
        if let Some(since) = state.full_since.take() {
            state.bound = buffer.next(state.bound, since.elapsed());
        }
        let room = state.bound.saturating_sub(state.granted + state.queue.len());
        state.granted += room;
        room
    }

    /// The bound now; moves in an adaptive buffer.
    pub(crate) fn bound(&self) -> usize {
        self.state().bound
    }

    /// Events that wait for the reader.
    pub(crate) fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    /// Nobody wants the rest: discard what waits and have the work ended. `error` is what a reader still gets.
    pub(crate) fn abandon(&self, outcome: Outcome, error: Option<Error>) {
        let mut state = self.state();
        if state.unwanted.is_some() {
            return;
        }
        let discarded = std::mem::take(&mut state.queue);
        // A reader that has the result need not wait for the end to have succeeded.
        state.unwanted = Some(if state.predicted { Outcome::Succeeded } else { outcome });
        state.end = error.map(Err);
        let (over, waker) = (state.over, state.waker.take());
        drop(state);
        drop(discarded);
        if !over {
            self.control.cancel(self.id);
        }
        wake(waker);
    }
}

/// Wake a reader. A waker is somebody else's code, and what is delivered after it must not suffer from its panic.
fn wake(waker: Option<Waker>) {
    let Some(waker) = waker else { return };
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a waker panicked; the runs go on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Token;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting {
        credits: AtomicUsize,
        cancels: AtomicUsize,
    }

    impl Control for Counting {
        fn credit(&self, _: u64, n: usize) {
            self.credits.fetch_add(n, Ordering::SeqCst);
        }
        fn cancel(&self, _: u64) {
            self.cancels.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn token() -> StreamEvent {
        StreamEvent::Token(Token {
            text: "t".into(),
            field: "f".into(),
            predictor: String::new(),
            lm_call: 1,
            last: false,
        })
    }

    fn inbox(buffer: usize) -> (Arc<Inbox>, Arc<Counting>, Arc<Metrics>) {
        let (control, metrics) = (Arc::new(Counting::default()), Arc::new(Metrics::default()));
        let inbox = Inbox::new(7, Some(buffer.into()), control.clone(), metrics.clone(), Permits::default());
        (inbox, control, metrics)
    }

    fn take(inbox: &Inbox) -> Poll<Option<Result<StreamEvent>>> {
        inbox.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_may_come_and_what_waits_never_exceed_the_bound() {
        let (inbox, control, _) = inbox(4);
        let mut allowed = inbox.first_credits().unwrap();
        let mut taken = 0;
        for round in 0..50 {
            let burst = (round % 4 + 1).min(allowed);
            inbox.deliver((0..burst).map(|_| token()));
            allowed -= burst;
            assert!(inbox.waiting() + allowed <= 4);
            for _ in 0..=(round % 3) {
                if take(&inbox).is_ready() {
                    taken += 1;
                }
            }
            allowed += control.credits.swap(0, Ordering::SeqCst);
        }
        assert!(taken > 40, "the credits ran dry: {taken}");
    }

    #[test]
    fn all_that_came_before_a_failure_is_read_first() {
        let (inbox, _, metrics) = inbox(4);
        inbox.deliver([token(), token()]);
        inbox.finish(Err(Error::Shutdown));
        assert!(matches!(take(&inbox), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(take(&inbox), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(take(&inbox), Poll::Ready(Some(Err(Error::Shutdown)))));
        assert!(matches!(take(&inbox), Poll::Ready(None)));
        assert_eq!(metrics.snapshot().failed, 1);
    }

    #[test]
    fn leaving_with_the_result_is_a_success() {
        let (inbox, _, metrics) = inbox(4);
        inbox.deliver([StreamEvent::Prediction(crate::Prediction::default())]);
        inbox.abandon(Outcome::Cancelled, None);
        inbox.finish(Err(Error::Cancelled));
        assert_eq!(metrics.snapshot().succeeded, 1);
    }

    #[test]
    fn the_run_counts_as_in_flight_until_the_work_has_ended() {
        let (inbox, control, metrics) = inbox(4);
        inbox.abandon(Outcome::Cancelled, None);
        inbox.abandon(Outcome::Cancelled, None);
        assert_eq!(control.cancels.load(Ordering::SeqCst), 1);
        assert_eq!(metrics.snapshot().in_flight, 1);
        inbox.finish(Ok(()));
        let snapshot = metrics.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.cancelled, snapshot.succeeded), (0, 1, 0));
    }
}
