//! What a call is made with, whichever way it is made.

use std::future::{poll_fn, Future};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::Job;
use crate::buffer::Buffer;
use crate::cancel::CancelHandle;
use crate::error::{Error, Result};
use crate::event::{to_object, StreamEvent};
use crate::inbox::Inbox;
use crate::metrics::Outcome;
use crate::prediction::Prediction;
use crate::program::Program;
use crate::retry::{random, Retry};

/// A call's options; a mistake in them is told when the call is made.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub timeout: Option<Duration>,
    pub retry: Option<Retry>,
    pub cancel: Option<CancelHandle>,
    pub config: Map<String, Value>,
    pub bad: Option<Error>,
}

impl Options {
    pub(crate) fn config(&mut self, name: String, value: impl Serialize) {
        match serde_json::to_value(value) {
            Ok(value) => drop(self.config.insert(name, value)),
            Err(error) => self.bad = Some(Error::value(&format!("option {name:?}"), error)),
        }
    }

    pub(crate) fn job(&self, inputs: Map<String, Value>, fields: Option<Vec<String>>, buffer: Option<Buffer>) -> Job {
        Job { inputs, config: self.config.clone(), fields, buffer, permits: Vec::new() }
    }
}

pub(crate) fn inputs_of(inputs: &impl Serialize) -> Result<Map<String, Value>> {
    to_object("inputs", inputs)
}

/// Leaves a run when it is dropped; past the deadline it was the time that ended it.
pub(crate) struct Leaving {
    pub run: Arc<Inbox>,
    pub deadline: Option<Instant>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.run.abandon(if late { Outcome::TimedOut } else { Outcome::Cancelled }, None);
    }
}

/// Wait for `work`, but no longer than the handle allows.
pub(crate) async fn unless_cancelled<T>(
    cancel: Option<&CancelHandle>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(cancel) = cancel else { return work.await };
    let mut work = std::pin::pin!(work);
    let mut cancelled = std::pin::pin!(cancel.cancelled());
    poll_fn(|cx| {
        if cancelled.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(Err(Error::Cancelled));
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// One result, with all tries.
pub(crate) async fn predict(program: &Program, inputs: Map<String, Value>, options: &Options) -> Result<Prediction> {
    if let Some(error) = &options.bad {
        return Err(error.clone());
    }
    let deadline = options.timeout.and_then(|after| Instant::now().checked_add(after));
    let all = unless_cancelled(options.cancel.as_ref(), tries(program, inputs, options, deadline));
    match options.timeout {
        None => all.await,
        Some(after) => tokio::time::timeout(after, all).await.unwrap_or(Err(Error::Timeout { after })),
    }
}

async fn tries(
    program: &Program,
    inputs: Map<String, Value>,
    options: &Options,
    deadline: Option<Instant>,
) -> Result<Prediction> {
    let mut tried = 0;
    loop {
        tried += 1;
        let error = match attempt(program, inputs.clone(), options, deadline).await {
            Ok(prediction) => return Ok(prediction),
            Err(error) => error,
        };
        match options.retry.as_ref().and_then(|retry| retry.wait(tried, &error, random())) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}

async fn attempt(
    program: &Program,
    inputs: Map<String, Value>,
    options: &Options,
    deadline: Option<Instant>,
) -> Result<Prediction> {
    let run = program.open(options.job(inputs, None, None)).await?;
    let leaving = Leaving { run, deadline };
    let mut usage = Vec::new();
    let mut result = None;
    while let Some(event) = poll_fn(|cx| leaving.run.poll_next(cx)).await {
        match event? {
            StreamEvent::Usage(one) => usage.push(one),
            StreamEvent::Prediction(prediction) => result = Some(prediction),
            _ => {}
        }
    }
    let mut prediction = result.ok_or_else(|| Error::Died("a run ended without a prediction".into()))?;
    if prediction.usage.is_empty() {
        prediction.usage = usage;
    }
    Ok(prediction)
}
