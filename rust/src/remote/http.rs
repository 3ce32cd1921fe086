//! Requests and replies.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value};

use super::connector::{connector, Connector};
use crate::error::{Error, Result, WireFailure};

pub(super) type Request = hyper::Request<Full<Bytes>>;

/// The most of an error's body that is read.
const MOST_ERROR: usize = 1 << 20;

/// How long the server has to answer that a run is to stop, in a leaver's background.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Http {
    client: Client<Connector, Full<Bytes>>,
    base: String,
    key: Option<String>,
}

impl Http {
    pub(super) fn new(url: &str, key: Option<String>, roots: &[Vec<u8>]) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| Error::Setup(format!("{url:?} is no address: {error}")))?;
        let client = Client::builder(TokioExecutor::new()).build(connector(&uri, roots)?);
        Ok(Self { client, base, key })
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>, config: Option<String>) -> Result<Request> {
        let mut builder = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        if let Some(key) = &self.key {
            builder = builder.header("authorization", format!("Bearer {key}"));
        }
        if let Some(config) = config {
            builder = builder.header("x-config", config);
        }
        builder.body(Full::new(body.into())).map_err(|error| Error::Setup(format!("no request can be made: {error}")))
    }

    pub(super) fn post(&self, path: &str, inputs: &Map<String, Value>, config: &Map<String, Value>) -> Result<Request> {
        let body = serde_json::to_vec(inputs).expect("inputs are plain data");
        let config = (!config.is_empty()).then(|| serde_json::to_string(config).expect("options are plain data"));
        self.request(Method::POST, path, body, config)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes> {
        let reply = self.send(self.request(Method::GET, path, Vec::new(), None)?).await?;
        Ok(reply.into_body().collect().await.map_err(broken)?.to_bytes())
    }

    /// Begin a run that a reader may come back to; returns its id.
    pub(super) async fn begin(&self, request: Request) -> Result<String> {
        let mut begun = self.read(self.send(request).await?).await?;
        match begun.get_mut("run").and_then(|run| run.get_mut("id")).map(Value::take) {
            Some(Value::String(id)) => Ok(id),
            _ => Err(Error::Value(format!("the server began a run and gave no id: {}", Value::Object(begun)))),
        }
    }

    /// Ask for the events of a run after the one with the number `last`.
    pub(super) fn events(&self, run: &str, last: u64) -> Result<Request> {
        let mut request = self.request(Method::GET, &format!("/runs/{run}/events"), Vec::new(), None)?;
        if last > 0 {
            let value = format!("{run}:{last}").parse();
            let value = value.map_err(|_| Error::Value(format!("the server's run has the id {run:?}")))?;
            request.headers_mut().insert("last-event-id", value);
        }
        Ok(request)
    }

    /// Have a run stopped. Where the server can't be told, it stops the run by itself when its grace is over.
    pub(super) async fn stop(&self, run: &str) {
        let told = async { self.send(self.request(Method::DELETE, &format!("/runs/{run}"), Vec::new(), None)?).await };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(run, %error, "the server could not be told to stop a run"),
            Err(_) => tracing::debug!(run, "the server did not answer that it stops a run"),
        }
    }

    /// Send a request; a reply of a status other than 2xx is the error that its body tells of.
    pub(super) async fn send(&self, request: Request) -> Result<Response<Incoming>> {
        let reply = self.client.request(request).await.map_err(|error| Error::Connection(described(&error)))?;
        if reply.status().is_success() {
            return Ok(reply);
        }
        let status = reply.status();
        let body = http_body_util::Limited::new(reply.into_body(), MOST_ERROR).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(error_of(&body).unwrap_or_else(|| Error::Connection(format!("the server answered {status}"))))
    }

    pub(super) async fn read(&self, reply: Response<Incoming>) -> Result<Map<String, Value>> {
        let body = reply.into_body().collect().await.map_err(broken)?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| Error::value("a reply that can't be read", error))
    }
}

/// The error in a body `{"error": {…}}`.
pub(super) fn error_of(body: &[u8]) -> Option<Error> {
    #[derive(serde::Deserialize)]
    struct Body {
        error: WireFailure,
    }
    serde_json::from_slice::<Body>(body).ok().map(|body| body.error.into())
}

pub(super) fn broken(error: hyper::Error) -> Error {
    Error::Connection(described(&error))
}

/// An error with its causes; hyper's own text leaves them out.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
