//! The runs that a server carries out for this process: each is a task here, whose end is the run's.

use std::collections::HashMap;
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::{Notify, Semaphore};

use super::http::{self, Http};
use super::reading::{Reading, Resumable};
use crate::backend::Job;
use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::inbox::{Control, Inbox};
use crate::metrics::Metrics;

/// How a run is asked for.
pub(super) enum Request {
    /// One reply with the result.
    Predict(http::Request),
    /// One reply with all events.
    Stream(http::Request),
    /// A run whose events are asked for again, so many times in a row, where the connection was lost.
    Resumable(http::Request, u32),
}

struct Live {
    inbox: Arc<Inbox>,
    /// The room that its reader has.
    credits: Arc<Semaphore>,
    /// Tells the task that nobody wants the run any more.
    leave: Arc<Notify>,
}

/// Runs whose task has not ended.
#[derive(Default)]
pub(super) struct Runs {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Live>>,
    idle: Notify,
}

impl Runs {
    fn live(&self) -> MutexGuard<'_, HashMap<u64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Start a run in a task on `runtime`.
    pub(super) fn start(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        http: Arc<Http>,
        request: Request,
        job: Job,
        metrics: &Arc<Metrics>,
    ) -> Arc<Inbox> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let control: Arc<dyn Control> = self.clone();
        let inbox = Inbox::new(id, job.buffer, control, metrics.clone(), job.permits);
        let credits = Arc::new(Semaphore::new(inbox.first_credits().unwrap_or(Semaphore::MAX_PERMITS)));
        let leave = Arc::new(Notify::new());
        let live = Live { inbox: inbox.clone(), credits: credits.clone(), leave: leave.clone() };
        self.live().insert(id, live);
        let task = Task { runs: self.clone(), id };
        let reading = Reading { http, inbox: inbox.clone(), credits, wanted: job.fields };
        runtime.spawn(async move { task.carry_out(request, reading, &leave).await });
        inbox
    }

    fn finish(&self, run: u64, end: Result<()>) {
        let mut live = self.live();
        let found = live.remove(&run);
        let idle = live.is_empty();
        drop(live);
        if let Some(found) = found {
            found.inbox.finish(end);
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// Wait until no run is left.
    pub(super) async fn idle(&self) {
        loop {
            let mut notified = pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.live().is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Ask every run to end, and return how many there were.
    pub(super) fn leave_all(&self) -> usize {
        let live = self.live();
        live.values().for_each(|run| run.leave.notify_one());
        live.len()
    }

    /// End every run that is left with `error`, whatever its task does.
    pub(super) fn finish_all(&self, error: &Error) {
        let left: Vec<u64> = self.live().keys().copied().collect();
        for run in left {
            self.finish(run, Err(error.clone()));
        }
    }
}

impl Control for Runs {
    fn credit(&self, run: u64, n: usize) {
        if let Some(run) = self.live().get(&run) {
            run.credits.add_permits(n);
        }
    }

    fn cancel(&self, run: u64) {
        if let Some(run) = self.live().get(&run) {
            run.leave.notify_one();
        }
    }
}

/// Carries one run out. The run ends with it, also where the Tokio runtime drops it half-way.
struct Task {
    runs: Arc<Runs>,
    id: u64,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.runs.finish(self.id, Err(Error::Shutdown));
    }
}

impl Task {
    async fn carry_out(self, request: Request, reading: Reading, leave: &Notify) {
        let end = match request {
            Request::Predict(post) => unless_left(leave, predict(&reading, post)).await,
            Request::Stream(post) => unless_left(leave, reading.one_reply(post)).await,
            Request::Resumable(post, reconnects) => return self.resumable(post, reconnects, reading, leave).await,
        };
        // Leaving has dropped the reply; that closes its connection, by which the server knows.
        self.runs.finish(self.id, end.unwrap_or(Err(Error::Cancelled)));
    }

    async fn resumable(&self, post: http::Request, reconnects: u32, reading: Reading, leave: &Notify) {
        let mut post = Box::pin(reading.http.begin(post));
        let Some(begun) = unless_left(leave, post.as_mut()).await else {
            // The server may have begun: only its reply tells the run's name, without which nobody can stop it.
            if let Ok(Ok(run)) = tokio::time::timeout(http::PATIENCE, post).await {
                reading.http.stop(&run).await;
            }
            return self.runs.finish(self.id, Err(Error::Cancelled));
        };
        let run = match begun {
            Ok(run) => run,
            Err(error) => return self.runs.finish(self.id, Err(error)),
        };
        let mut resumable = Resumable::new(&reading, &run, reconnects);
        match unless_left(leave, resumable.read()).await {
            // The run's permits are kept until the server knows.
            None => {
                reading.http.stop(&run).await;
                self.runs.finish(self.id, Err(Error::Cancelled));
            }
            Some(end) => {
                let goes_on = end.is_err() && !resumable.over();
                self.runs.finish(self.id, end);
                if goes_on {
                    reading.http.stop(&run).await;
                }
            }
        }
    }
}

async fn predict(reading: &Reading, request: http::Request) -> Result<()> {
    let mut outputs = reading.http.read(reading.http.send(request).await?).await?;
    outputs.shift_remove("duration_ms");
    let run = outputs.shift_remove("run");
    let usage = run.and_then(|mut run| run.get_mut("usage").map(serde_json::Value::take)).unwrap_or_default();
    let one = crate::Prediction { outputs, usage: totals(usage) };
    reading.inbox.deliver([StreamEvent::Prediction(one)]);
    Ok(())
}

/// The server tells a run's totals with its result.
fn totals(usage: serde_json::Value) -> Vec<crate::Usage> {
    serde_json::from_value(usage).map(|total| vec![total]).unwrap_or_default()
}

/// What `work` gives, or `None` where the reader has left before.
async fn unless_left<T>(leave: &Notify, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (pin!(work), pin!(leave.notified()));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        left.as_mut().poll(cx).map(|()| None)
    })
    .await
}
