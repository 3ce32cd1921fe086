//! The runtime: what programs run in.

#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "embedded")]
use serde::Serialize;

use crate::backend::{Backend, ShutdownReport};
#[cfg(feature = "embedded")]
use crate::embedded::{Embedded, Settings};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::metrics::{Metrics, MetricsSnapshot, OnRunEnd, RunReport};
use crate::program::Program;

/// What programs run in: Python in this process, or a server. Clones are the same runtime.
///
/// When the last clone, program and stream of it are gone, Python's loop ends by itself; [`shutdown`](Self::shutdown)
/// waits for that.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    backend: Arc<dyn Backend>,
    pub(crate) limits: Limits,
    metrics: Arc<Metrics>,
    closing: AtomicBool,
}

impl Runtime {
    /// Set up Python in this process.
    #[cfg(feature = "embedded")]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Set up a connection to `dspy-live serve` at `url`, such as `http://127.0.0.1:8000`; everything else is the same.
    /// An address with `https` needs the feature `tls`.
    #[cfg(feature = "remote")]
    pub fn remote(url: impl Into<String>) -> crate::remote::RemoteBuilder {
        crate::remote::RemoteBuilder::new(url.into())
    }

    pub(crate) fn new(backend: Arc<dyn Backend>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { backend, limits, metrics, closing: AtomicBool::new(false) }))
    }

    /// Load a program: `"package.module:object"`, `"file.py:object"` or `"question -> answer"`.
    ///
    /// From a server it is the program of that name, or the one that the server names after the same target.
    ///
    /// # Errors
    /// [`Error::Other`] with the code `configuration` where there is no such thing, or its own code fails.
    pub async fn program(&self, target: &str) -> Result<Program> {
        self.load(target, None).await
    }

    /// As [`program`](Self::program), and say how synchronous code runs: `native`, `thread`, `inline` or `auto`.
    ///
    /// # Errors
    /// As for `program`, and where the program can't run that way. A server decides that by itself.
    pub async fn program_with(&self, target: &str, execution: &str) -> Result<Program> {
        self.load(target, Some(execution)).await
    }

    async fn load(&self, target: &str, execution: Option<&str>) -> Result<Program> {
        self.0.check()?;
        let loaded = self.0.backend.load(target, execution).await?;
        Ok(Program::new(self.0.clone(), loaded))
    }

    /// The counters and latencies of now.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.0.metrics.snapshot()
    }

    /// Take no new calls, let the running ones end for `grace`, cancel those that are left, and end.
    ///
    /// Calls that come meanwhile fail with [`Error::Shutdown`]. Returns within `grace` and five seconds, whatever the
    /// programs do. Must be called in a Tokio runtime.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        self.0.closing.store(true, Ordering::SeqCst);
        self.0.backend.shutdown(grace).await
    }
}

impl Inner {
    pub(crate) fn check(&self) -> Result<()> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(Error::Shutdown);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("closing", &self.0.closing).finish_non_exhaustive()
    }
}

/// Limits and callbacks, which both kinds of runtime have.
#[derive(Clone, Default)]
pub(crate) struct Common {
    max_in_flight: Option<usize>,
    rate: Option<(u32, Duration)>,
    on_run_end: Option<OnRunEnd>,
}

impl Common {
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        if let Some(n) = self.max_in_flight {
            limits = limits.and_concurrency(n);
        }
        if let Some((n, per)) = self.rate {
            limits = limits.and_rate(n, per)?;
        }
        Ok(limits)
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::new(Metrics::new(self.on_run_end.clone()))
    }

    pub(crate) fn max_in_flight(&mut self, n: usize) {
        self.max_in_flight = Some(n);
    }

    pub(crate) fn rate(&mut self, n: u32, per: Duration) {
        self.rate = Some((n, per));
    }

    pub(crate) fn on_run_end(&mut self, callback: impl Fn(&RunReport) + Send + Sync + 'static) {
        self.on_run_end = Some(Arc::new(callback));
    }
}

/// Sets up Python in this process; see [`Runtime::builder`].
///
/// ```no_run
/// # async fn example() -> dspy_live::Result<()> {
/// use dspy_live::Runtime;
///
/// let runtime = Runtime::builder()
///     .venv(".venv")
///     .module_path("python")
///     .lm("openai/gpt-4o-mini")
///     .lm_option("temperature", 0.2)
///     .max_in_flight(100)
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[cfg(feature = "embedded")]
#[derive(Clone)]
#[must_use]
pub struct Builder {
    settings: Settings,
    common: Common,
    bad: Option<Error>,
}

#[cfg(feature = "embedded")]
impl Default for Builder {
    fn default() -> Self {
        let settings = Settings { max_threads: 256, ..Settings::default() };
        Self { settings, common: Common::default(), bad: None }
    }
}

#[cfg(feature = "embedded")]
impl Builder {
    /// The virtual environment that has `dspy-live` and what your programs import; `VIRTUAL_ENV` by default, and
    /// without that `python3` on the `PATH`.
    pub fn venv(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.venv = Some(folder.into());
        self
    }

    /// A folder that modules are imported from, before all others; may be given several times.
    pub fn module_path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.module_paths.push(folder.into());
        self
    }

    /// The LM that all programs ask, such as `openai/gpt-4o-mini`. By default the one that the program's own code
    /// configures, else `DSPY_LIVE_LM`, else the simulated LM.
    pub fn lm(mut self, model: impl Into<String>) -> Self {
        self.settings.lm.model = Some(model.into());
        self
    }

    /// Where an OpenAI-compatible endpoint answers, such as `http://127.0.0.1:8001/v1`.
    pub fn api_base(mut self, url: impl Into<String>) -> Self {
        self.settings.lm.api_base = Some(url.into());
        self
    }

    /// The endpoint's key; where there is none, the provider's own variable (`OPENAI_API_KEY`) is used.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.settings.lm.api_key = Some(key.into());
        self
    }

    /// Another option of the LM, such as `temperature`, `max_tokens` or `cache`.
    pub fn lm_option(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        match serde_json::to_value(value) {
            Ok(value) => drop(self.settings.lm.options.insert(name, value)),
            Err(error) => self.bad = Some(Error::value(&format!("the LM's option {name:?}"), error)),
        }
        self
    }

    /// Answer from the simulated LM, in the process and without a network, whatever the programs configure.
    pub fn simulated_lm(mut self) -> Self {
        self.settings.lm.simulate = true;
        self
    }

    /// Threads for programs that have no asynchronous form, 256 by default.
    pub fn max_threads(mut self, n: usize) -> Self {
        self.settings.max_threads = n.max(1);
        self
    }

    /// The most runs at once, over all programs; further calls wait. A run counts until its work in Python has ended,
    /// which for a cancelled one may be later than its caller's leaving. Unbounded by default.
    pub fn max_in_flight(mut self, n: usize) -> Self {
        self.common.max_in_flight(n);
        self
    }

    /// At most `n` starts in any `per`, over all programs; further calls wait.
    pub fn rate(mut self, n: u32, per: Duration) -> Self {
        self.common.rate(n, per);
        self
    }

    /// Called for each run that has ended, on Python's thread: be quick. A panic in it is logged and harms nothing.
    pub fn on_run_end(mut self, callback: impl Fn(&RunReport) + Send + Sync + 'static) -> Self {
        self.common.on_run_end(callback);
        self
    }

    /// Start Python. It takes as long as `import dspy` does, one to two seconds.
    ///
    /// # Errors
    /// [`Error::Setup`] says what is missing and how to get it; [`Error::AlreadyStarted`] where this process has had
    /// a runtime before.
    pub async fn start(self) -> Result<Runtime> {
        if let Some(error) = self.bad {
            return Err(error);
        }
        let (limits, metrics) = (self.common.limits()?, self.common.metrics());
        let backend = Embedded::start(self.settings, metrics.clone()).await?;
        Ok(Runtime::new(Arc::new(backend), limits, metrics))
    }
}
