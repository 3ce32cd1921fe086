//! A program that blocks Python's loop can't hold up a shutdown, nor the end of the process.
#![cfg(feature = "embedded")]

mod common;

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use common::{root, venv};
use dspy_live::{Error, Runtime};
use serde_json::json;

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_program_that_blocks() {
    let programs = root().join("rust/tests/programs");
    let runtime = Runtime::builder().venv(venv()).module_path(programs).simulated_lm().start().await.unwrap();
    let busy = runtime.program("rust_programs:busy").await.unwrap();
    let call = tokio::spawn(busy.predict(json!({"question": "60"})).into_future());
    tokio::time::sleep(Duration::from_millis(200)).await;

    let start = Instant::now();
    let report = runtime.shutdown(Duration::from_millis(100)).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!((report.cancelled, report.clean), (1, false));
    assert_eq!(call.await.unwrap().unwrap_err(), Error::Shutdown);
}
