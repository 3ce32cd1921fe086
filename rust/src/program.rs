//! A program that is ready for calls.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::backend::{Job, Loaded};
use crate::batch::Batch;
use crate::error::Result;
use crate::inbox::Inbox;
use crate::limits::Limits;
use crate::predict::Predict;
use crate::runtime::Inner;
use crate::schema::Schema;
use crate::stream::StreamBuilder;

/// A loaded program. Clones are cheap and share its limits.
#[derive(Clone)]
pub struct Program {
    runtime: Arc<Inner>,
    loaded: Arc<dyn Loaded>,
    limits: Limits,
}

impl Program {
    pub(crate) fn new(runtime: Arc<Inner>, loaded: Arc<dyn Loaded>) -> Self {
        Self { limits: runtime.limits.clone(), runtime, loaded }
    }

    /// The program's name and fields.
    pub fn schema(&self) -> &Schema {
        self.loaded.schema()
    }

    /// Run the program and await its result. `inputs` is a `json!`, a map, or a struct of your own.
    ///
    /// ```no_run
    /// # async fn example(program: dspy_live::Program) -> dspy_live::Result<()> {
    /// use std::time::Duration;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Ask { question: String }
    ///
    /// let ask = Ask { question: "What is Tokio?".into() };
    /// let prediction = program.predict(ask).timeout(Duration::from_secs(30)).await?;
    /// println!("{}", prediction["answer"]);
    /// # Ok(()) }
    /// ```
    pub fn predict(&self, inputs: impl Serialize) -> Predict {
        Predict::new(self.clone(), &inputs)
    }

    /// Run the program and read its events as they happen.
    ///
    /// ```no_run
    /// # async fn example(program: dspy_live::Program) -> dspy_live::Result<()> {
    /// let inputs = serde_json::json!({"question": "What is Tokio?"});
    /// let mut stream = program.stream(inputs).fields(["answer"]).buffer(64).start().await?;
    /// while let Some(event) = stream.recv().await? {
    ///     if let Some(token) = event.token() {
    ///         print!("{}", token.text);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&self, inputs: impl Serialize) -> StreamBuilder {
        StreamBuilder::new(self.clone(), &inputs)
    }

    /// Run the program once for each of `inputs`, some at once.
    ///
    /// ```no_run
    /// # async fn example(program: dspy_live::Program) -> dspy_live::Result<()> {
    /// let inputs = (0..100).map(|n| serde_json::json!({"question": format!("What is {n} + {n}?")}));
    /// for result in program.batch(inputs).concurrency(16).in_order().await {
    ///     println!("{}", result?["answer"]);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn batch<I>(&self, inputs: I) -> Batch<I::IntoIter>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        Batch::new(self.clone(), inputs.into_iter())
    }

    /// A handle whose calls, and those of its clones, run at most `n` at once, on top of the limits of this one.
    #[must_use]
    pub fn with_concurrency(&self, n: usize) -> Self {
        Self { limits: self.limits.clone().and_concurrency(n), ..self.clone() }
    }

    /// A handle that starts at most `n` calls in any `per`, on top of the limits of this one.
    ///
    /// # Errors
    /// [`Error::Setup`](crate::Error::Setup) where either is zero.
    pub fn with_rate(&self, n: u32, per: Duration) -> Result<Self> {
        Ok(Self { limits: self.limits.clone().and_rate(n, per)?, ..self.clone() })
    }

    /// Wait for the limits and start a run.
    pub(crate) async fn open(&self, mut job: Job) -> Result<Arc<Inbox>> {
        self.runtime.check()?;
        job.permits = self.limits.acquire().await?;
        self.runtime.check()?;
        self.loaded.start(job)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("name", &self.schema().name).finish_non_exhaustive()
    }
}
