//! Counters and latencies of a runtime's runs.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// With a prediction.
    Succeeded,
    /// With an error.
    Failed,
    /// Its caller left, or a handle cancelled it.
    Cancelled,
    /// Its time was up.
    TimedOut,
}

impl Outcome {
    pub(crate) fn of(end: &Result<()>) -> Self {
        match end {
            Ok(()) => Self::Succeeded,
            Err(Error::Cancelled) => Self::Cancelled,
            Err(Error::Timeout { .. }) => Self::TimedOut,
            Err(_) => Self::Failed,
        }
    }
}

/// One run, when its work has ended; see [`Builder::on_run_end`](crate::Builder::on_run_end).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RunReport {
    /// How it ended.
    pub outcome: Outcome,
    /// From its start, after the wait for a slot, to its end.
    pub duration: Duration,
    /// From its start to its first token, where it was streamed.
    pub first_token: Option<Duration>,
    /// The tokens that it streamed.
    pub tokens: u64,
}

/// Called for each run that has ended.
pub(crate) type OnRunEnd = Arc<dyn Fn(&RunReport) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Metrics {
    started: AtomicU64,
    ended: [AtomicU64; 4],
    tokens: AtomicU64,
    crossings: AtomicU64,
    duration: Histogram,
    first_token: Histogram,
    on_run_end: Option<OnRunEnd>,
}

impl Metrics {
    pub(crate) fn new(on_run_end: Option<OnRunEnd>) -> Self {
        Self { on_run_end, ..Self::default() }
    }

    pub(crate) fn begin(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn crossed(&self) {
        self.crossings.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, outcome: Outcome, started: Instant, first: Option<Instant>, tokens: u64) {
        let first_token = first.map(|at| at.duration_since(started));
        let report = RunReport { outcome, duration: started.elapsed(), first_token, tokens };
        self.ended[outcome as usize].fetch_add(1, Relaxed);
        self.tokens.fetch_add(tokens, Relaxed);
        self.duration.record(report.duration);
        if let Some(first) = first_token {
            self.first_token.record(first);
        }
        if let Some(callback) = &self.on_run_end {
            // It may run on Python's own thread, which must go on whatever a user's code does.
            let call = std::panic::AssertUnwindSafe(|| callback(&report));
            if std::panic::catch_unwind(call).is_err() {
                tracing::error!("on_run_end panicked; the run is not affected");
            }
        }
    }

    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        let ended = |outcome: Outcome| self.ended[outcome as usize].load(Relaxed);
        let over: u64 = self.ended.iter().map(|count| count.load(Relaxed)).sum();
        let started = self.started.load(Relaxed);
        MetricsSnapshot {
            started,
            in_flight: started.saturating_sub(over),
            succeeded: ended(Outcome::Succeeded),
            failed: ended(Outcome::Failed),
            cancelled: ended(Outcome::Cancelled),
            timed_out: ended(Outcome::TimedOut),
            tokens: self.tokens.load(Relaxed),
            crossings: self.crossings.load(Relaxed),
            duration: self.duration.snapshot(),
            first_token: self.first_token.snapshot(),
        }
    }
}

/// The metrics of a runtime at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Runs that were started.
    pub started: u64,
    /// Runs whose work has not ended yet, those that lost their caller among them.
    pub in_flight: u64,
    /// Runs that ended with a prediction.
    pub succeeded: u64,
    /// Runs that ended with an error.
    pub failed: u64,
    /// Runs whose caller left, or that were cancelled.
    pub cancelled: u64,
    /// Runs whose time was up.
    pub timed_out: u64,
    /// Tokens that were streamed.
    pub tokens: u64,
    /// How often a batch of events came over from Python; 0 for a remote runtime.
    pub crossings: u64,
    /// From the start of a run to its end.
    pub duration: Latencies,
    /// From the start of a streamed run to its first token.
    pub first_token: Latencies,
}

impl MetricsSnapshot {
    /// The metrics in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        let mut counter = |name: &str, kind: &str, help: &str, lines: &[(&str, u64)]| {
            let _ = writeln!(out, "# HELP dspy_live_{name} {help}\n# TYPE dspy_live_{name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(out, "dspy_live_{name}{labels} {value}");
            }
        };
        counter("runs_in_flight", "gauge", "Runs whose work has not ended.", &[("", self.in_flight)]);
        let ended = [
            ("{outcome=\"succeeded\"}", self.succeeded),
            ("{outcome=\"failed\"}", self.failed),
            ("{outcome=\"cancelled\"}", self.cancelled),
            ("{outcome=\"timed_out\"}", self.timed_out),
        ];
        counter("runs_total", "counter", "Runs that have ended.", &ended);
        counter("tokens_total", "counter", "Tokens that were streamed.", &[("", self.tokens)]);
        counter("crossings_total", "counter", "Batches that came over from Python.", &[("", self.crossings)]);
        self.duration.write(&mut out, "run_seconds", "From a run's start to its end.");
        self.first_token.write(&mut out, "first_token_seconds", "From a run's start to its first token.");
        out
    }
}

/// Latencies of many runs, accurate to 9 %.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Latencies {
    /// How many were recorded.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
    buckets: Vec<u64>,
}

impl Latencies {
    /// The latency below which a share `q` (0 to 1) of the runs stayed; `None` where there were none.
    pub fn percentile(&self, q: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        Some(Duration::from_secs_f64(edge(index + 1)))
    }

    /// The mean; `None` where there were none.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_secs_f64(self.sum.as_secs_f64() / self.count as f64))
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP dspy_live_{name} {help}\n# TYPE dspy_live_{name} summary");
        for q in [0.5, 0.9, 0.99] {
            if let Some(at) = self.percentile(q) {
                let _ = writeln!(out, "dspy_live_{name}{{quantile=\"{q}\"}} {}", at.as_secs_f64());
            }
        }
        let _ = writeln!(out, "dspy_live_{name}_sum {}\ndspy_live_{name}_count {}", self.sum.as_secs_f64(), self.count);
    }
}

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99] = [0.5, 0.99].map(|q| self.percentile(q));
        f.debug_struct("Latencies")
            .field("count", &self.count)
            .field("p50", &p50)
            .field("p99", &p99)
            .finish_non_exhaustive()
    }
}

/// Buckets whose edges grow by the eighth root of 2, which is 9 %, from 10 µs on.
const PER_DOUBLING: f64 = 8.0;
const LEAST: f64 = 1e-5;
/// Up to 10 µs · 2^(240/8), about three hours.
const BUCKETS: usize = 240;

fn edge(index: usize) -> f64 {
    LEAST * (index as f64 / PER_DOUBLING).exp2()
}

struct Histogram {
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { nanoseconds: AtomicU64::new(0), buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Histogram {
    fn record(&self, latency: Duration) {
        let index = ((latency.as_secs_f64() / LEAST).log2() * PER_DOUBLING).max(0.0) as usize;
        self.buckets[index.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn snapshot(&self) -> Latencies {
        let buckets: Vec<u64> = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        Latencies { count: buckets.iter().sum(), sum: Duration::from_nanos(self.nanoseconds.load(Relaxed)), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_ten_percent() {
        let histogram = Histogram::default();
        for ms in 1..=1000 {
            histogram.record(Duration::from_millis(ms));
        }
        let latencies = histogram.snapshot();
        for (q, expected) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = latencies.percentile(q).unwrap().as_secs_f64() * 1000.0;
            assert!((got / expected - 1.0).abs() < 0.1, "{q}: {got}");
        }
        assert_eq!(latencies.count, 1000);
        assert_eq!(Histogram::default().snapshot().percentile(0.5), None);
    }

    #[test]
    fn extremes_have_a_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_secs(1_000_000));
        assert_eq!(histogram.snapshot().count, 2);
    }

    #[test]
    fn a_callback_that_panics_harms_nobody() {
        let metrics = Metrics::new(Some(Arc::new(|_: &RunReport| panic!("a user's bug"))));
        metrics.begin();
        metrics.end(Outcome::Succeeded, Instant::now(), None, 0);
        assert_eq!(metrics.snapshot().succeeded, 1);
        assert!(metrics.snapshot().prometheus().contains("dspy_live_runs_total{outcome=\"succeeded\"} 1"));
    }
}
