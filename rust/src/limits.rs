//! How many runs at once, and how many in a second.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Limits that apply to a handle, the widest first. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Limits(Vec<Limit>);

#[derive(Clone)]
enum Limit {
    Concurrency(Arc<Semaphore>),
    Rate(Arc<DefaultDirectRateLimiter>),
}

/// Slots that a run holds.
pub(crate) type Permits = Vec<OwnedSemaphorePermit>;

impl Limits {
    pub(crate) fn and_concurrency(mut self, n: usize) -> Self {
        self.0.push(Limit::Concurrency(Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)))));
        self
    }

    pub(crate) fn and_rate(mut self, n: u32, per: Duration) -> Result<Self> {
        let bad = || Error::Setup(format!("a rate must be at least one run in a time above zero; got {n} in {per:?}"));
        let burst = NonZeroU32::new(n).ok_or_else(bad)?;
        let quota = Quota::with_period(per / n).ok_or_else(bad)?.allow_burst(burst);
        self.0.push(Limit::Rate(Arc::new(DefaultDirectRateLimiter::direct(quota))));
        Ok(self)
    }

    /// Wait for a slot of every limit, then for the rates. Cancelling gives back what was taken.
    pub(crate) async fn acquire(&self) -> Result<Permits> {
        let mut permits = Vec::new();
        for limit in &self.0 {
            if let Limit::Concurrency(slots) = limit {
                permits.push(slots.clone().acquire_owned().await.map_err(|_| Error::Shutdown)?);
            }
        }
        for limit in &self.0 {
            if let Limit::Rate(rate) = limit {
                while let Err(early) = rate.check() {
                    tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
                }
            }
        }
        Ok(permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_run_in_any_time_is_no_rate() {
        assert!(Limits::default().and_rate(0, Duration::from_secs(1)).is_err());
        assert!(Limits::default().and_rate(1, Duration::ZERO).is_err());
    }

    #[tokio::test]
    async fn a_slot_comes_back_when_its_permit_goes() {
        let limits = Limits::default().and_concurrency(1);
        let held = limits.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let limits = limits.clone();
            async move { limits.acquire().await.map(|permits| permits.len()) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap().unwrap(), 1);
    }
}
