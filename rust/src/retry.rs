//! When to try again, and after how long.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// How often a call is tried, and the waits between: each doubles, with jitter, and never falls short of what the
/// other side asked for.
///
/// ```
/// use std::time::Duration;
/// use dspy_live::Retry;
///
/// let retry = Retry::new(4).backoff(Duration::from_millis(200), Duration::from_secs(5));
/// ```
///
/// A call is tried again where [`Error::is_retryable`] says so, or where [`Retry::when`] does. Streams have no retry
/// of this kind, since what was read can't be taken back; the LM's own retries work in them and show as
/// [`Restart`](crate::StreamEvent::Restart) events.
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    base: Duration,
    most: Duration,
    when: Option<Decide>,
}

type Decide = Arc<dyn Fn(&Error) -> bool + Send + Sync>;

impl Retry {
    /// At most `attempts` tries, the first one counted, 0.2 s to 10 s apart.
    pub fn new(attempts: u32) -> Self {
        Self { attempts: attempts.max(1), base: Duration::from_millis(200), most: Duration::from_secs(10), when: None }
    }

    /// The wait before the second try and the longest wait of all.
    #[must_use]
    pub fn backoff(mut self, base: Duration, most: Duration) -> Self {
        (self.base, self.most) = (base, most.max(base));
        self
    }

    /// Decide yourself which errors are worth another try.
    #[must_use]
    pub fn when(mut self, decide: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(decide));
        self
    }

    /// The wait after try number `tried` (from 1) failed, or `None` where that was the last.
    pub(crate) fn wait(&self, tried: u32, error: &Error, random: f64) -> Option<Duration> {
        let worth = self.when.as_ref().map_or_else(|| error.is_retryable(), |decide| decide(error));
        if tried >= self.attempts || !worth {
            return None;
        }
        let full = self.base.saturating_mul(2_u32.saturating_pow(tried - 1)).min(self.most);
        // Between half and all of it: spread, and still never at once.
        let wait = full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        Some(error.retry_after().map_or(wait, |asked| wait.max(asked)))
    }
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).field("base", &self.base).finish_non_exhaustive()
    }
}

/// A number from 0 to 1, good enough to spread retries.
pub(crate) fn random() -> f64 {
    RandomState::new().hash_one(std::time::Instant::now()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn lm_failed(retry_after: Option<Duration>) -> Error {
        Error::from_failure(Failure {
            kind: "LMServerError".into(),
            message: "down".into(),
            code: "lm_failed".into(),
            traceback: String::new(),
            retry_after,
        })
    }

    #[test]
    fn waits_double_up_to_the_most() {
        let retry = Retry::new(6).backoff(Duration::from_secs(1), Duration::from_secs(4));
        let waits: Vec<_> = (1..=6).map(|n| retry.wait(n, &lm_failed(None), 1.0).map(|d| d.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(4), Some(4), None]);
        assert_eq!(retry.wait(1, &lm_failed(None), 0.0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn what_the_other_side_asked_for_is_kept() {
        let asked = Duration::from_secs(60);
        assert_eq!(Retry::new(2).wait(1, &lm_failed(Some(asked)), 0.5), Some(asked));
    }

    #[test]
    fn only_what_may_go_better_is_tried_again() {
        assert_eq!(Retry::new(3).wait(1, &Error::Shutdown, 0.5), None);
        assert!(Retry::new(3).when(|_| true).wait(1, &Error::Shutdown, 0.5).is_some());
        assert!((0.0..=1.0).contains(&random()));
    }
}
