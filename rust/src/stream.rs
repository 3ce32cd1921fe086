//! A run as a stream of events.

use std::collections::BTreeMap;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Sleep;

use crate::buffer::Buffer;
use crate::call::{inputs_of, unless_cancelled, Leaving, Options};
use crate::cancel::CancelHandle;
use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::metrics::Outcome;
use crate::prediction::Prediction;
use crate::program::Program;

/// A stream that is about to start; see [`Program::stream`].
#[must_use = "nothing runs until start() is awaited"]
pub struct StreamBuilder {
    program: Program,
    inputs: Map<String, Value>,
    fields: Option<Vec<String>>,
    buffer: Buffer,
    options: Options,
}

impl StreamBuilder {
    pub(crate) fn new(program: Program, inputs: &impl Serialize) -> Self {
        let mut options = Options::default();
        let inputs = inputs_of(inputs).unwrap_or_else(|error| {
            options.bad = Some(error);
            Map::new()
        });
        Self { program, inputs, fields: None, buffer: Buffer::DEFAULT, options }
    }

    /// Only tokens and partial values of these output fields; all other events come in any case.
    pub fn fields<I>(mut self, fields: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }

    /// How many events may wait here; 64 by default. As many again may wait in Python, and then the LM's socket is
    /// read no more.
    pub fn buffer(mut self, buffer: impl Into<Buffer>) -> Self {
        self.buffer = buffer.into();
        self
    }

    /// The most time for all of it, the wait for a slot included. Then the run is cancelled and the stream fails with
    /// [`Error::Timeout`].
    pub fn timeout(mut self, after: Duration) -> Self {
        self.options.timeout = Some(after);
        self
    }

    /// Let `handle` cancel this stream.
    pub fn cancel_with(mut self, handle: &CancelHandle) -> Self {
        self.options.cancel = Some(handle.clone());
        self
    }

    /// An option of the LM for this call alone, such as `temperature` or `rollout_id`.
    pub fn config(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.options.config(name.into(), value);
        self
    }

    /// Wait for a slot and start the run.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Timeout`] and [`Error::Cancelled`] before the start; [`Error::Value`] for inputs
    /// that are no object. What the program does is told by the stream.
    pub async fn start(self) -> Result<PredictionStream> {
        let Self { program, inputs, fields, buffer, options } = self;
        if let Some(error) = options.bad {
            return Err(error);
        }
        let mut deadline = options.timeout.map(|after| (Box::pin(tokio::time::sleep(after)), after));
        let collected = fields.as_ref().and_then(|names| match names.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        });
        let job = options.job(inputs, fields, Some(buffer));
        let run = {
            let mut opening = std::pin::pin!(unless_cancelled(options.cancel.as_ref(), program.open(job)));
            poll_fn(|cx| {
                if let Poll::Ready(run) = opening.as_mut().poll(cx) {
                    return Poll::Ready(run);
                }
                let Some((sleep, after)) = &mut deadline else { return Poll::Pending };
                sleep.as_mut().poll(cx).map(|()| Err(Error::Timeout { after: *after }))
            })
            .await?
        };
        let handle = options.cancel.unwrap_or_default();
        handle.watch(&run);
        Ok(PredictionStream { run: Leaving { run, deadline: None }, program, deadline, handle, collected })
    }
}

/// The events of one run: a [`Stream`] of `Result<StreamEvent, Error>`, `Send` and `Unpin`.
///
/// It ends after [`StreamEvent::Prediction`], or after an `Err`. Dropping it cancels the run: the LM's connection is
/// closed, and the run's permits come back when Python has ended the work. Not reading it stops Python, and in the end
/// the reading of the LM's socket.
pub struct PredictionStream {
    run: Leaving,
    program: Program,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    handle: CancelHandle,
    collected: Option<String>,
}

impl PredictionStream {
    /// The next event; `None` at the end. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// Why the run failed, once; then the stream has ended.
    pub async fn recv(&mut self) -> Result<Option<StreamEvent>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// As [`recv`](Self::recv), and fail with [`Error::Timeout`] where nothing comes for `silence`.
    ///
    /// The run goes on after that: call it again, or drop the stream.
    ///
    /// # Errors
    /// As for `recv`, and [`Error::Timeout`].
    pub async fn recv_with_timeout(&mut self, silence: Duration) -> Result<Option<StreamEvent>> {
        tokio::time::timeout(silence, self.recv()).await.unwrap_or(Err(Error::Timeout { after: silence }))
    }

    /// Read to the end and return one field as text: the one that `fields` named, else the last `str` output.
    ///
    /// # Errors
    /// Why the run failed; [`Error::Value`] where the program has no such field.
    pub async fn collect_all(self) -> Result<String> {
        let field = self.collected.clone().or_else(|| self.program.schema().text.clone());
        match field {
            Some(field) => self.collect_field(&field).await,
            None => Err(Error::Value("this program has no str output; name a field with collect_field".into())),
        }
    }

    /// Read to the end and return that field as text.
    ///
    /// # Errors
    /// As for [`collect_all`](Self::collect_all).
    pub async fn collect_field(mut self, field: &str) -> Result<String> {
        let mut text = Collected::default();
        while let Some(event) = self.recv().await? {
            if let Some(found) = text.feed(event, field) {
                return Ok(found);
            }
        }
        text.rest().ok_or_else(|| Error::Value(format!("the program gave no field {field:?}")))
    }

    /// Read to the end and return the prediction.
    ///
    /// # Errors
    /// Why the run failed.
    pub async fn prediction(mut self) -> Result<Prediction> {
        let mut usage = Vec::new();
        let mut result = None;
        while let Some(event) = self.recv().await? {
            match event {
                StreamEvent::Usage(one) => usage.push(one),
                StreamEvent::Prediction(prediction) => result = Some(prediction),
                _ => {}
            }
        }
        let mut prediction = result.ok_or_else(|| Error::Died("a run ended without a prediction".into()))?;
        prediction.usage = usage;
        Ok(prediction)
    }

    /// The buffer's bound now: fixed, or moving between the two of [`Buffer::Adaptive`].
    pub fn buffer_size(&self) -> usize {
        self.run.run.bound()
    }

    /// How many events wait here.
    pub fn waiting(&self) -> usize {
        self.run.run.waiting()
    }

    /// A handle that cancels this stream from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.handle.clone()
    }
}

impl Stream for PredictionStream {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.run.run.poll_next(cx);
        if let Some((sleep, after)) = &mut self.deadline {
            let after = *after;
            if matches!(next, Poll::Ready(None | Some(Err(_)))) {
                self.deadline = None;
            } else if sleep.as_mut().poll(cx).is_ready() {
                self.deadline = None;
                self.run.run.abandon(Outcome::TimedOut, None);
                return Poll::Ready(Some(Err(Error::Timeout { after })));
            }
        }
        next
    }
}

impl std::fmt::Debug for PredictionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PredictionStream").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// The text of one field. What the prediction says is true; tokens stand in for it where the program does not give
/// the field on.
#[derive(Default)]
struct Collected {
    by_call: BTreeMap<u32, String>,
}

impl Collected {
    fn feed(&mut self, event: StreamEvent, field: &str) -> Option<String> {
        match event {
            StreamEvent::Token(token) if token.field == field => {
                self.by_call.entry(token.lm_call).or_default().push_str(&token.text);
            }
            StreamEvent::Restart(restart) if restart.fields.is_empty() || restart.fields.iter().any(|f| f == field) => {
                self.by_call.remove(&restart.lm_call);
            }
            StreamEvent::Prediction(mut prediction) => {
                return prediction.outputs.remove(field).map(|value| match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                });
            }
            _ => {}
        }
        None
    }

    /// What the last LM call said.
    fn rest(self) -> Option<String> {
        self.by_call.into_values().next_back()
    }
}
