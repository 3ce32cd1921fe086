//! Cancelling from elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::error::Error;
use crate::inbox::Inbox;
use crate::metrics::Outcome;

/// Cancels the calls that it was given to, from any task or thread. Clones cancel the same calls.
///
/// ```no_run
/// # async fn example(program: dspy_live::Program) -> dspy_live::Result<()> {
/// use dspy_live::CancelHandle;
///
/// let handle = CancelHandle::new();
/// let call = program.predict(serde_json::json!({"question": "?"})).cancel_with(&handle);
/// tokio::spawn(async move { handle.cancel() });
/// assert_eq!(call.await.unwrap_err().code(), "cancelled");
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct CancelHandle(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    notify: Notify,
    runs: Mutex<Vec<Weak<Inbox>>>,
}

impl CancelHandle {
    /// A handle that cancels nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancel every call that has this handle, running or yet to come. They fail with [`Error::Cancelled`] at once;
    /// the LM's connections are closed, and the permits come back when Python has ended the work.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
        let runs = std::mem::take(&mut *self.0.runs.lock().unwrap_or_else(PoisonError::into_inner));
        for run in runs.iter().filter_map(Weak::upgrade) {
            run.abandon(Outcome::Cancelled, Some(Error::Cancelled));
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Wait until it is cancelled.
    pub async fn cancelled(&self) {
        let notified = self.0.notify.notified();
        let mut notified = std::pin::pin!(notified);
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    pub(crate) fn watch(&self, run: &Arc<Inbox>) {
        let mut runs = self.0.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(run));
        drop(runs);
        if self.is_cancelled() {
            self.cancel();
        }
    }
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CancelHandle").field(&self.is_cancelled()).finish()
    }
}
