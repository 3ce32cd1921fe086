//! Call and stream [DSPy](https://dspy.ai) programs from Tokio.
//!
//! ```no_run
//! use dspy_live::Runtime;
//!
//! # async fn example() -> dspy_live::Result<()> {
//! let runtime = Runtime::builder().venv(".venv").start().await?;
//! let program = runtime.program("question -> answer").await?;
//!
//! let prediction = program.predict(serde_json::json!({"question": "What is Tokio?"})).await?;
//! println!("{}", prediction["answer"]);
//!
//! let mut stream = program.stream(serde_json::json!({"question": "And a stream?"})).start().await?;
//! while let Some(event) = stream.recv().await? {
//!     if let Some(token) = event.token() {
//!         print!("{}", token.text);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! One thread owns Python and its event loop. Your threads never attach to the interpreter: commands go in through a
//! queue, events come out in batches, credits carry your consumer's pace back to the LM's socket, and dropping a
//! future or a stream closes the LM's connection.
//!
//! Features: `embedded` (the default) links Python into this process; `remote` speaks to `dspy-live serve` with the
//! same API; `tls` adds `https` to it. Without any of them there are only the types, for a library that names them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(any(feature = "embedded", feature = "remote")), allow(dead_code))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(clippy::pedantic)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::needless_pass_by_value,
    clippy::return_self_not_must_use
)]

#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, dspy_live_repository, feature = "embedded", feature = "remote"))]
#[doc = include_str!("../../docs/guides/rust.md")]
struct Guide;

mod backend;
mod batch;
mod buffer;
mod call;
mod cancel;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod event;
mod inbox;
mod limits;
mod metrics;
mod predict;
mod prediction;
mod program;
#[cfg(feature = "remote")]
mod remote;
mod retry;
mod runtime;
mod schema;
mod stream;

pub use backend::ShutdownReport;
pub use batch::{Batch, BatchStream};
pub use buffer::Buffer;
pub use cancel::CancelHandle;
pub use error::{Error, Failure, Result};
pub use event::{Custom, Partial, Reasoning, Restart, Started, Status, StreamEvent, Text, Token, Tool, Unknown, Usage};
pub use metrics::{Latencies, MetricsSnapshot, Outcome, RunReport};
pub use predict::Predict;
pub use prediction::Prediction;
pub use program::Program;
#[cfg(feature = "remote")]
pub use remote::RemoteBuilder;
pub use retry::Retry;
#[cfg(feature = "embedded")]
pub use runtime::Builder;
pub use runtime::Runtime;
pub use schema::{Field, Schema};
pub use stream::{PredictionStream, StreamBuilder};
