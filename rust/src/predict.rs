//! One call, one result.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::call::{inputs_of, predict, Options};
use crate::cancel::CancelHandle;
use crate::error::Result;
use crate::prediction::Prediction;
use crate::program::Program;
use crate::retry::Retry;

/// A call that starts when it is awaited; see [`Program::predict`].
///
/// Dropping the future cancels the run.
#[must_use = "nothing runs until this is awaited"]
pub struct Predict {
    program: Program,
    inputs: Map<String, Value>,
    options: Options,
}

impl Predict {
    pub(crate) fn new(program: Program, inputs: &impl Serialize) -> Self {
        let mut options = Options::default();
        let inputs = inputs_of(inputs).unwrap_or_else(|error| {
            options.bad = Some(error);
            Map::new()
        });
        Self { program, inputs, options }
    }

    /// The most time for all of it, the wait for a slot and all tries included. Then the run is cancelled and the
    /// call fails with [`Error::Timeout`](crate::Error::Timeout).
    pub fn timeout(mut self, after: Duration) -> Self {
        self.options.timeout = Some(after);
        self
    }

    /// Try again where that may help.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = Some(retry);
        self
    }

    /// Let `handle` cancel this call.
    pub fn cancel_with(mut self, handle: &CancelHandle) -> Self {
        self.options.cancel = Some(handle.clone());
        self
    }

    /// An option of the LM for this call alone, such as `temperature` or `rollout_id`.
    pub fn config(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.options.config(name.into(), value);
        self
    }
}

impl IntoFuture for Predict {
    type Output = Result<Prediction>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { predict(&self.program, self.inputs, &self.options).await })
    }
}
