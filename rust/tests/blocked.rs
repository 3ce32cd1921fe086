//! A program that blocks Python's loop can't hold up a shutdown, nor the end of the process.
#![cfg(feature = "embedded")]

mod common;

use std::future::IntoFuture;
use std::time::Duration;

use common::{new_path, root, until, venv, BOUND};
use dspy_live::{Error, Runtime};
use serde_json::json;

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_program_that_blocks() {
    let programs = root().join("rust/tests/programs");
    let runtime = Runtime::builder().venv(venv()).module_path(programs).simulated_lm().start().await.unwrap();
    let busy = runtime.program("rust_programs:busy").await.unwrap();
    let told = new_path("busy");
    std::fs::write(&told, [0]).unwrap();
    let call = tokio::spawn(busy.predict(json!({"question": told})).into_future());
    until("Python is busy", || std::fs::read(&told).unwrap() == [1]).await;

    // Python would be busy for a minute.
    let report = tokio::time::timeout(BOUND, runtime.shutdown(Duration::from_millis(100))).await.unwrap();
    assert_eq!((report.cancelled, report.clean), (1, false));
    assert_eq!(call.await.unwrap().unwrap_err(), Error::Shutdown);
    std::fs::remove_file(told).unwrap();
}
