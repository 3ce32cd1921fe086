//! Python behind `dspy-live serve`, over HTTP and server-sent events.

mod connector;
mod events;
mod http;
mod reading;
mod runs;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::backend::{Backend, Boxed, Job, Loaded, ShutdownReport};
use crate::error::{Error, Result};
use crate::inbox::Inbox;
use crate::metrics::{Metrics, RunReport};
use crate::runtime::{Common, Runtime};
use crate::schema::{Field, Schema};
use http::Http;
use runs::{Request, Runs};

/// Attempts in a row that bring nothing, as in the Python client.
const RECONNECTS: u32 = 5;

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
    reconnects: u32,
    common: Common,
}

impl RemoteBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self { url, key: None, roots: Vec::new(), reconnects: RECONNECTS, common: Common::default() }
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

    /// How often in a row a stream that lost its connection asks the server for the rest, 5 by default.
    ///
    /// The tries are 0.05 s to 2 s apart, and any event that comes begins the count again. The server keeps a run
    /// without a reader for its `--grace`, 30 seconds by default. A stream that can't go on fails with [`Error::Lost`].
    ///
    /// With 0 a stream is one reply: a lost connection cancels the run at once, and so does the end of this process.
    /// Take that where a load balancer may send the next request to another server, which does not have the run.
    pub fn reconnects(mut self, n: u32) -> Self {
        self.reconnects = n;
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
        let server = Server { http, runs: Arc::default(), reconnects: self.reconnects, metrics: metrics.clone() };
        server.programs().await?;
        Ok(Runtime::new(Arc::new(server), limits, metrics))
    }
}

struct Server {
    http: Arc<Http>,
    runs: Arc<Runs>,
    reconnects: u32,
    metrics: Arc<Metrics>,
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
                reconnects: self.reconnects,
                metrics: self.metrics.clone(),
            };
            Ok(Arc::new(program) as Arc<dyn Loaded>)
        })
    }

    fn shutdown(&self, grace: Duration) -> Boxed<'_, ShutdownReport> {
        Box::pin(async move {
            let _ = tokio::time::timeout(grace, self.runs.idle()).await;
            let cancelled = self.runs.leave_all();
            // Each tells the server; one that does not answer must not hold us.
            let clean = tokio::time::timeout(PATIENCE, self.runs.idle()).await.is_ok();
            self.runs.finish_all(&Error::Cancelled);
            ShutdownReport { cancelled, clean }
        })
    }
}

/// How long cancelled runs have to tell the server, which may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

struct Program {
    path: String,
    schema: Schema,
    http: Arc<Http>,
    runs: Arc<Runs>,
    reconnects: u32,
    metrics: Arc<Metrics>,
}

impl Loaded for Program {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn start(&self, job: Job) -> Result<Arc<Inbox>> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Setup("a remote program must be called in a Tokio runtime".into()))?;
        let post = |end: &str| self.http.post(&format!("{}{end}", self.path), &job.inputs, &job.config);
        let request = match (job.buffer.is_some(), self.reconnects) {
            (false, _) => Request::Predict(post("/predict")?),
            (true, 0) => Request::Stream(post("/predict/stream")?),
            (true, reconnects) => Request::Resumable(post("/runs")?, reconnects),
        };
        Ok(self.runs.start(&runtime, self.http.clone(), request, job, &self.metrics))
    }
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
