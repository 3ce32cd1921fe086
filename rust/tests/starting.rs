//! What must work, or fail with words that help, before there is a runtime; then its end. One process, one story.
#![cfg(feature = "embedded")]

mod common;

use std::future::IntoFuture;
use std::time::Duration;

use common::{root, venv, Server, BOUND};
use dspy_live::{Error, Runtime};
use serde_json::json;

fn setup_error(result: Result<Runtime, Error>) -> String {
    match result {
        Err(Error::Setup(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A current-thread runtime of Tokio: ours brings its own thread.
#[tokio::test]
async fn from_a_wrong_venv_to_a_shutdown_with_work_left() {
    // Nothing there, a folder that is none, and one without our package: none of them uses up the one start.
    let text = setup_error(Runtime::builder().venv("/nowhere/.venv").start().await);
    assert!(text.contains("/nowhere/.venv") && text.contains("-m venv"), "{text}");
    let text = setup_error(Runtime::builder().venv(root()).start().await);
    assert!(text.contains("bin/python"), "{text}");
    let empty = std::env::temp_dir().join(format!("dspy-live-empty-{}", std::process::id()));
    let made = std::process::Command::new(venv().join("bin/python"))
        .args(["-m", "venv", "--without-pip"])
        .arg(&empty)
        .status();
    assert!(made.unwrap().success());
    let text = setup_error(Runtime::builder().venv(&empty).start().await);
    std::fs::remove_dir_all(&empty).unwrap();
    assert!(text.contains("pip install dspy-live"), "{text}");
    assert!(setup_error(Runtime::builder().venv(venv()).rate(0, Duration::from_secs(1)).start().await).contains("rate"));

    let sim = Server::simulator(&["--fast"]);
    let runtime = Runtime::builder()
        .venv(venv())
        .module_path(root().join("rust/tests/programs"))
        .lm("openai/simulated")
        .api_base(&sim.url)
        .api_key("any")
        .lm_option("cache", false)
        .max_in_flight(2)
        .start()
        .await
        .unwrap();
    let program = runtime.program("rust_programs:predict").await.unwrap();

    // One that ends within the grace period, one that must be cancelled, one that waits for a slot.
    let mut unread = program.stream(json!({"question": "Unread? [sim length=5]"})).start().await.unwrap();
    while runtime.metrics().succeeded == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let short = tokio::spawn(program.predict(json!({"question": "Short? [sim ttft=0.4]"})).into_future());
    let long = tokio::spawn(program.predict(json!({"question": "Long? [sim ttft=600]"})).into_future());
    sim.until("requests", |n| n == 3).await;
    let waiting = tokio::spawn(program.predict(json!({"question": "Waiting? [sim ttft=600]"})).into_future());
    tokio::time::sleep(Duration::from_millis(50)).await;

    // Three seconds: the short one has its reply then, though a process stood still for two.
    let report = tokio::time::timeout(BOUND, runtime.shutdown(Duration::from_secs(3))).await.unwrap();
    assert_eq!((report.cancelled, report.clean), (1, true));
    assert!(!short.await.unwrap().unwrap()["answer"].is_null(), "a reply within the grace period is not lost");
    assert_eq!(long.await.unwrap().unwrap_err(), Error::Cancelled);
    assert_eq!(waiting.await.unwrap().unwrap_err(), Error::Shutdown);
    let mut last = None;
    while let Some(event) = unread.recv().await.unwrap() {
        last = Some(event);
    }
    assert!(last.unwrap().prediction().is_some(), "what was not read yet is not lost either");

    assert_eq!(program.predict(json!({"question": "Late?"})).await.unwrap_err(), Error::Shutdown);
    assert_eq!(runtime.program("rust_programs:predict").await.unwrap_err(), Error::Shutdown);
    assert_eq!(Runtime::builder().venv(venv()).start().await.unwrap_err(), Error::AlreadyStarted);
}
