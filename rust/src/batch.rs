//! Many calls, some at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::call::{inputs_of, predict, Options};
use crate::cancel::CancelHandle;
use crate::error::{Error, Result};
use crate::prediction::Prediction;
use crate::program::Program;
use crate::retry::Retry;

/// Many calls of one program; see [`Program::batch`].
///
/// Inputs are taken from their iterator only when there is room for another call, so it may be endless. One input's
/// failure is that input's `Err` and stops nothing else. Dropping the batch, or its stream, cancels what runs.
#[must_use = "nothing runs until in_order() or as_completed()"]
pub struct Batch<I> {
    program: Program,
    inputs: I,
    concurrency: usize,
    options: Options,
}

impl<I> Batch<I>
where
    I: Iterator,
    I::Item: Serialize,
{
    pub(crate) fn new(program: Program, inputs: I) -> Self {
        Self { program, inputs, concurrency: 8, options: Options::default() }
    }

    /// The most calls at once, 8 by default.
    pub fn concurrency(mut self, n: usize) -> Self {
        self.concurrency = n.max(1);
        self
    }

    /// The most time for each call, its tries included.
    pub fn timeout(mut self, after: Duration) -> Self {
        self.options.timeout = Some(after);
        self
    }

    /// Try each call again where that may help.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = Some(retry);
        self
    }

    /// Let `handle` cancel all calls, those to come included.
    pub fn cancel_with(mut self, handle: &CancelHandle) -> Self {
        self.options.cancel = Some(handle.clone());
        self
    }

    /// An option of the LM for these calls alone, such as `temperature`.
    pub fn config(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.options.config(name.into(), value);
        self
    }

    /// Run all of it and return the results in the order of the inputs. Must be awaited in a Tokio runtime.
    pub async fn in_order(self) -> Vec<Result<Prediction>> {
        let mut stream = self.as_completed();
        let mut results = BTreeMap::new();
        while let Some((index, result)) = std::future::poll_fn(|cx| stream.poll_completed(cx)).await {
            results.insert(index, result);
        }
        results.into_values().collect()
    }

    /// The results as they come, each with the index of its input. Must be polled in a Tokio runtime.
    pub fn as_completed(self) -> BatchStream<I> {
        BatchStream { batch: self, running: JoinSet::new(), next: 0, exhausted: false }
    }
}

/// The results of a [`Batch`] as they come: a [`Stream`] of `(index, Result<Prediction, Error>)`.
pub struct BatchStream<I> {
    batch: Batch<I>,
    running: JoinSet<(usize, Result<Prediction>)>,
    next: usize,
    exhausted: bool,
}

impl<I> BatchStream<I>
where
    I: Iterator,
    I::Item: Serialize,
{
    fn fill(&mut self) {
        while !self.exhausted && self.running.len() < self.batch.concurrency {
            let Some(inputs) = self.batch.inputs.next() else {
                self.exhausted = true;
                return;
            };
            let (index, inputs) = (self.next, inputs_of(&inputs));
            self.next += 1;
            let (program, options) = (self.batch.program.clone(), self.batch.options.clone());
            self.running.spawn(async move {
                let result = match inputs {
                    Ok(inputs) => predict(&program, inputs, &options).await,
                    Err(error) => Err(error),
                };
                (index, result)
            });
        }
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<Prediction>)>> {
        self.fill();
        match self.running.poll_join_next(cx) {
            Poll::Ready(Some(Ok(done))) => Poll::Ready(Some(done)),
            // Only a panic of `Retry::when` can end a task so.
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some((usize::MAX, Err(Error::Died(format!("a call of a batch panicked: {error}"))))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I> Stream for BatchStream<I>
where
    I: Iterator + Unpin,
    I::Item: Serialize,
{
    type Item = (usize, Result<Prediction>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_completed(cx)
    }
}
