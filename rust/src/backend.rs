//! What carries runs out: Python in this process, or a server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::buffer::Buffer;
use crate::error::Result;
use crate::inbox::Inbox;
use crate::limits::Permits;
use crate::schema::Schema;

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A run that is about to start.
pub(crate) struct Job {
    pub inputs: Map<String, Value>,
    pub config: Map<String, Value>,
    pub fields: Option<Vec<String>>,
    /// `None` where only the result is wanted.
    pub buffer: Option<Buffer>,
    pub permits: Permits,
}

/// A loaded program. Letting go of it unloads it.
pub(crate) trait Loaded: Send + Sync {
    fn schema(&self) -> &Schema;
    /// Start a run. Never waits: what goes wrong later is told through the inbox.
    fn start(&self, job: Job) -> Result<Arc<Inbox>>;
}

/// How a runtime ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Runs that had not ended within the grace period and were cancelled.
    pub cancelled: usize,
    /// False where some work could not be ended: a program that blocks and never asks its LM again.
    pub clean: bool,
}

pub(crate) trait Backend: Send + Sync {
    fn load<'a>(&'a self, target: &'a str, execution: Option<&'a str>) -> Boxed<'a, Result<Arc<dyn Loaded>>>;
    fn shutdown(&self, grace: Duration) -> Boxed<'_, ShutdownReport>;
}
