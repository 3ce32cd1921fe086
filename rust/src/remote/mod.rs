//! Python behind `dspy-live serve`, over HTTP and server-sent events.

mod connector;
mod events;
mod http;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use crate::backend::{Backend, Boxed, Job, Loaded, ShutdownReport};
use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::inbox::{Control, Inbox};
use crate::metrics::{Metrics, RunReport};
use crate::runtime::{Common, Runtime};
use crate::schema::{Field, Schema};
use events::Events;
use http::Http;

/// Sets up a connection to a server; see [`Runtime::remote`].
///
/// ```no_run
/// # async fn example() -> dspy_live::Result<()> {
/// use dspy_live::Runtime;
///
/// let runtime = Runtime::remote("http://127.0.0.1:8000").api_key("secret").max_in_flight(100).start().await?;
/// let program = runtime.program("file.py:program").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RemoteBuilder {
    url: String,
    key: Option<String>,
    roots: Vec<Vec<u8>>,
    common: Common,
}

impl RemoteBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self { url, key: None, roots: Vec::new(), common: Common::default() }
    }

    /// A key that the server was given with `--key`.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Certificates, in PEM, to trust beside the system's, for a server whose own authority signs its certificate;
    /// may be given several times.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// The most runs at once, over all programs; further calls wait.
    pub fn max_in_flight(mut self, n: usize) -> Self {
        self.common.max_in_flight(n);
        self
    }

    /// At most `n` starts in any `per`, over all programs; further calls wait.
    pub fn rate(mut self, n: u32, per: Duration) -> Self {
        self.common.rate(n, per);
        self
    }

    /// Called for each run that has ended. A panic in it is logged and harms nothing.
    pub fn on_run_end(mut self, callback: impl Fn(&RunReport) + Send + Sync + 'static) -> Self {
        self.common.on_run_end(callback);
        self
    }

    /// See that the server answers.
    ///
    /// # Errors
    /// [`Error::Setup`] for an address or a certificate that is none, [`Error::Connection`] where nothing answers or its
    /// certificate is not trusted, and what the server says, such as `unauthorized`.
    pub async fn start(self) -> Result<Runtime> {
        let (limits, metrics) = (self.common.limits()?, self.common.metrics());
        let http = Arc::new(Http::new(&self.url, self.key, &self.roots)?);
        let server = Server { http, runs: Arc::default(), metrics: metrics.clone() };
        server.programs().await?;
        Ok(Runtime::new(Arc::new(server), limits, metrics))
    }
}

struct Server {
    http: Arc<Http>,
    runs: Arc<Runs>,
    metrics: Arc<Metrics>,
}

/// Each run's task, the room that its reader has, and where its events go.
type Live = HashMap<u64, (AbortHandle, Arc<Semaphore>, Arc<Inbox>)>;

/// Runs whose reply has not ended.
#[derive(Default)]
struct Runs {
    next: AtomicU64,
    live: Mutex<Live>,
    idle: Notify,
}

impl Runs {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, run: u64, end: Result<()>) {
        let mut live = self.live();
        let found = live.remove(&run);
        let idle = live.is_empty();
        drop(live);
        if let Some((task, _, inbox)) = found {
            task.abort();
            inbox.finish(end);
        }
        if idle {
            self.idle.notify_waiters();
        }
    }
}

impl Control for Runs {
    fn credit(&self, run: u64, n: usize) {
        if let Some((_, credits, _)) = self.live().get(&run) {
            credits.add_permits(n);
        }
    }

    /// Dropping the reply closes its connection, by which the server knows.
    fn cancel(&self, run: u64) {
        self.finish(run, Err(Error::Cancelled));
    }
}

#[derive(Deserialize)]
struct Listing {
    programs: Vec<Described>,
}

#[derive(Clone, Deserialize)]
struct Described {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    inputs: Vec<Field>,
    #[serde(default)]
    outputs: Vec<Field>,
}

impl Server {
    async fn programs(&self) -> Result<Vec<Described>> {
        let body = self.http.get("/programs").await?;
        let listing: Listing =
            serde_json::from_slice(&body).map_err(|_| Error::Setup("what answers is no dspy-live server".into()))?;
        Ok(listing.programs)
    }

    async fn find(&self, target: &str) -> Result<Described> {
        let programs = self.programs().await?;
        let names = names_of(target);
        let found = names.iter().find_map(|name| programs.iter().find(|program| program.name == *name));
        found.cloned().ok_or_else(|| {
            let there: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
            Error::Setup(format!("the server has no program {target:?}; it has {}", there.join(", ")))
        })
    }
}

/// What a server may call the program of a target: its own name, else the object's, else its module's.
fn names_of(target: &str) -> Vec<&str> {
    if target.contains("->") {
        return vec!["predict"];
    }
    let (place, object) = target.rsplit_once(':').unwrap_or((target, ""));
    let place = place.trim_end_matches('/');
    let stem = match place.strip_suffix(".py") {
        Some(file) => file.rsplit('/').next(),
        None => place.rsplit(['.', '/']).next(),
    };
    [Some(target), Some(object), stem].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

impl Backend for Server {
    fn load<'a>(&'a self, target: &'a str, _: Option<&'a str>) -> Boxed<'a, Result<Arc<dyn Loaded>>> {
        Box::pin(async move {
            let found = self.find(target).await?;
            let text = found.outputs.iter().rfind(|field| field.kind == "str").map(|field| field.name.clone());
            let path = format!("/programs/{}", found.name);
            let schema = Schema {
                name: found.name,
                lm: String::new(),
                inputs: found.inputs,
                outputs: found.outputs,
                description: found.description,
                text,
            };
            let program = Program {
                path,
                schema,
                http: self.http.clone(),
                runs: self.runs.clone(),
                metrics: self.metrics.clone(),
            };
            Ok(Arc::new(program) as Arc<dyn Loaded>)
        })
    }

    fn shutdown(&self, grace: Duration) -> Boxed<'_, ShutdownReport> {
        Box::pin(async move {
            let idle = async {
                loop {
                    let mut notified = std::pin::pin!(self.runs.idle.notified());
                    notified.as_mut().enable();
                    if self.runs.live().is_empty() {
                        return;
                    }
                    notified.await;
                }
            };
            let _ = tokio::time::timeout(grace, idle).await;
            let left: Vec<u64> = self.runs.live().keys().copied().collect();
            for run in &left {
                self.runs.finish(*run, Err(Error::Cancelled));
            }
            ShutdownReport { cancelled: left.len(), clean: true }
        })
    }
}

struct Program {
    path: String,
    schema: Schema,
    http: Arc<Http>,
    runs: Arc<Runs>,
    metrics: Arc<Metrics>,
}

impl Loaded for Program {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn start(&self, job: Job) -> Result<Arc<Inbox>> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Setup("a remote program must be called in a Tokio runtime".into()))?;
        let id = self.runs.next.fetch_add(1, Ordering::Relaxed);
        let control: Arc<dyn Control> = self.runs.clone();
        let inbox = Inbox::new(id, job.buffer, control, self.metrics.clone(), job.permits);
        let credits = Arc::new(Semaphore::new(inbox.first_credits().unwrap_or(Semaphore::MAX_PERMITS)));
        let end = if job.buffer.is_some() { "/predict/stream" } else { "/predict" };
        let request = self.http.post(&format!("{}{end}", self.path), &job.inputs, &job.config)?;
        let (http, runs, wanted) = (self.http.clone(), self.runs.clone(), job.fields);
        let (credits_of_task, inbox_of_task, streamed) = (credits.clone(), inbox.clone(), job.buffer.is_some());
        // The table is locked over the start, so that the task finds itself in it.
        let mut live = self.runs.live();
        let task = runtime.spawn(async move {
            let end = if streamed {
                stream(&http, request, &inbox_of_task, &credits_of_task, wanted.as_deref()).await
            } else {
                predict(&http, request, &inbox_of_task).await
            };
            runs.finish(id, end);
        });
        live.insert(id, (task.abort_handle(), credits, inbox.clone()));
        Ok(inbox)
    }
}

async fn predict(http: &Http, request: http::Request, inbox: &Inbox) -> Result<()> {
    let mut outputs = http.read(http.send(request).await?).await?;
    outputs.shift_remove("duration_ms");
    let run = outputs.shift_remove("run");
    let usage = run.and_then(|mut run| run.get_mut("usage").map(serde_json::Value::take)).unwrap_or_default();
    let one = crate::Prediction { outputs, usage: totals(usage) };
    inbox.deliver([StreamEvent::Prediction(one)]);
    Ok(())
}

/// The server tells a run's totals with its result.
fn totals(usage: serde_json::Value) -> Vec<crate::Usage> {
    serde_json::from_value(usage).map(|total| vec![total]).unwrap_or_default()
}

async fn stream(
    http: &Http,
    request: http::Request,
    inbox: &Inbox,
    credits: &Semaphore,
    wanted: Option<&[String]>,
) -> Result<()> {
    let mut events = Events::new(http.send(request).await?);
    while let Some(event) = events.next().await? {
        let field = match &event {
            StreamEvent::Token(token) => Some(&token.field),
            StreamEvent::Partial(partial) => Some(&partial.field),
            _ => None,
        };
        if let (Some(field), Some(wanted)) = (field, wanted) {
            if !wanted.contains(field) {
                continue;
            }
        }
        // Not reading on is the backpressure: the server's socket fills up, and then the LM's.
        credits.acquire().await.map_err(|_| Error::Shutdown)?.forget();
        inbox.deliver([event]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_found_under_the_name_that_a_server_gives_it() {
        assert_eq!(names_of("question -> answer"), ["predict"]);
        assert_eq!(names_of("qa"), ["qa", "qa"]);
        assert_eq!(names_of("app/qa.py:program"), ["app/qa.py:program", "program", "qa"]);
        assert_eq!(names_of("package.module:rag"), ["package.module:rag", "rag", "module"]);
    }
}
