//! Python in this process.
//!
//! One thread of ours initializes Python, runs its event loop and is the only one of ours that ever attaches to the
//! interpreter ([`owner`] has the calls, and a lint refuses them anywhere else). Every other thread talks to it through
//! [`Shared`]: a queue of commands and a byte on a socket, neither of which needs the interpreter.

mod interpreter;
mod owner;
mod shared;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::backend::{Backend, Boxed, Job, Loaded, ShutdownReport};
use crate::error::{Error, Result};
use crate::inbox::{Control, Inbox};
use crate::metrics::Metrics;
use crate::schema::Schema;
use shared::{Command, Shared};

/// The LM of all programs, as the builder was told.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct LmSettings {
    pub model: Option<String>,
    pub api_base: Option<String>,
    pub api_key: Option<String>,
    pub options: Map<String, Value>,
    pub simulate: bool,
}

/// What Python is started with.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Settings {
    pub lm: LmSettings,
    pub max_threads: usize,
    #[serde(skip)]
    pub venv: Option<PathBuf>,
    #[serde(skip)]
    pub module_paths: Vec<PathBuf>,
}

/// Python can be initialized once in a process, and its modules do not survive a second time.
static STARTED: Mutex<bool> = Mutex::new(false);

/// Claims the process's one interpreter; gives the claim back where the start fails before Python runs.
struct Claim {
    kept: bool,
}

impl Claim {
    fn take() -> Result<Self> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *started, true) {
            return Err(Error::AlreadyStarted);
        }
        Ok(Self { kept: false })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            *STARTED.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
    }
}

pub(crate) struct Embedded {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl Embedded {
    pub(crate) async fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Self> {
        let mut claim = Claim::take()?;
        let venv = settings.venv.clone();
        let found = run_blocking(move || interpreter::find(venv.as_deref())).await??;
        let (shared, wake) = Shared::new(metrics.clone())?;
        let (ready, started) = oneshot::channel();
        owner::spawn(shared.clone(), wake, found, settings, ready)?;
        started.await.map_err(|_| Error::Died("it ended while it was starting".into()))??;
        claim.kept = true;
        Ok(Self { shared, metrics })
    }
}

/// Run something that waits for another process, on a thread of its own: any executor may be around us.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("dspy-live-setup".into())
        .spawn(move || drop(done.send(work())))
        .map_err(|error| Error::Setup(format!("no thread can be started: {error}")))?;
    result.await.map_err(|_| Error::Setup("looking for Python panicked".into()))
}

impl Backend for Embedded {
    fn load<'a>(&'a self, target: &'a str, execution: Option<&'a str>) -> Boxed<'a, Result<Arc<dyn Loaded>>> {
        Box::pin(async move {
            let id = self.shared.next_id();
            let answer = self.shared.expect_load(id)?;
            self.shared.send(&Command::Load { id, target, execution });
            let schema = answer.await.map_err(|_| self.shared.gone())??;
            let program = Program { id, schema, shared: self.shared.clone(), metrics: self.metrics.clone() };
            Ok(Arc::new(program) as Arc<dyn Loaded>)
        })
    }

    fn shutdown(&self, grace: Duration) -> Boxed<'_, ShutdownReport> {
        Box::pin(async move {
            let _ = tokio::time::timeout(grace, self.shared.idle()).await;
            let cancelled = self.shared.running();
            self.shared.send(&Command::Shutdown { patience: PATIENCE.as_secs_f64() });
            // A program that blocks the loop, or Python code in C that never returns, must not hold us for ever.
            let ended = tokio::time::timeout(PATIENCE * 2, self.shared.ended()).await.is_ok();
            let clean = ended && self.shared.running() == 0;
            self.shared.die(&Error::Shutdown);
            ShutdownReport { cancelled, clean }
        })
    }
}

/// How long cancelled runs have to end: longer than a process of a busy machine stands still.
const PATIENCE: Duration = Duration::from_millis(2500);

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.send(&Command::Shutdown { patience: PATIENCE.as_secs_f64() });
    }
}

struct Program {
    id: u64,
    schema: Schema,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl Loaded for Program {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn start(&self, job: Job) -> Result<Arc<Inbox>> {
        let id = self.shared.next_id();
        let control: Arc<dyn Control> = self.shared.clone();
        let inbox = Inbox::new(id, job.buffer, control, self.metrics.clone(), job.permits);
        if let Err(error) = self.shared.expect_run(id, inbox.clone()) {
            inbox.finish(Err(error.clone()));
            return Err(error);
        }
        self.shared.send(&Command::Run {
            id,
            program: self.id,
            inputs: &job.inputs,
            stream: job.buffer.is_some(),
            fields: job.fields.as_deref(),
            credits: inbox.first_credits(),
            config: &job.config,
        });
        Ok(inbox)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.shared.send(&Command::Unload { id: self.id });
    }
}
