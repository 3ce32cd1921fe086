//! Python in this process: the conformance suite, and what only an embedded runtime has.
#![cfg(feature = "embedded")]

mod common;
#[macro_use]
mod conformance;

use std::future::IntoFuture;
use std::io::Write;
use std::time::{Duration, Instant};

use common::{new_path, root, until, venv, Server};
use conformance::{settled, World, TURN};
use dspy_live::{Error, Runtime};
use serde_json::json;
use tokio::sync::OnceCell;

async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_init(|| async {
            let sim = Server::simulator(&["--fast"]);
            let runtime = Runtime::builder()
                .venv(venv())
                .module_path(root().join("rust/tests/programs"))
                .lm("openai/simulated")
                .api_base(&sim.url)
                .api_key("any")
                .lm_option("cache", false)
                .lm_option("num_retries", 0)
                .on_run_end(|_| std::panic::resume_unwind(Box::new("a user's bug")))
                .start()
                .await
                .unwrap();
            World { runtime, sim }
        })
        .await
}

conformance!();

#[tokio::test]
async fn a_consumer_that_stops_for_ten_seconds() {
    let _turn = TURN.lock().await;
    conformance::a_slow_consumer_stops_the_lms_socket(world().await, Duration::from_secs(8)).await;
}

#[tokio::test]
async fn an_exception_has_its_kind_message_and_traceback() {
    let program = world().await.runtime.program("rust_programs:failing").await.unwrap();
    let error = program.predict(json!({"question": "x"})).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("ValueError", "no answer to 'x'"));
    let traceback = error.traceback().unwrap();
    assert!(traceback.contains("rust_programs.py") && traceback.contains("aforward"), "{traceback}");
    let error = program.predict(json!({"question": "unprintable"})).await.unwrap_err();
    assert!(error.to_string().contains("half a pair"), "{error}");

    let program = world().await.runtime.program("rust_programs:predict").await.unwrap();
    let error = program.predict(json!({"question": "Down? [sim fault=500]"})).await.unwrap_err();
    assert!(error.failure().unwrap().kind.starts_with("dspy."), "{error:?}");
    assert!(error.traceback().is_some());
}

#[tokio::test]
async fn what_json_has_no_form_for_breaks_nothing() {
    let program = world().await.runtime.program("rust_programs:odd").await.unwrap();
    let mut stream = program.stream(json!({"question": "?"})).start().await.unwrap();
    let mut names = Vec::new();
    while let Some(event) = stream.recv().await.unwrap() {
        names.push(event.name().to_owned());
        if let Some(prediction) = event.prediction() {
            assert_eq!(prediction["answer"], "a?b");
            assert!(prediction["number"].is_null());
        }
    }
    assert_eq!(names, ["started", "custom", "prediction"]);

    // A number beyond all bounds of Rust's is that run's failure, and no other's.
    let error = program.predict(json!({"question": "huge"})).await.unwrap_err();
    assert!(matches!(error, Error::Value(_)), "{error:?}");
    assert!(program.predict(json!({"question": "?"})).await.is_ok());
}

/// The program computes until it is told, and lets no other thread attach meanwhile: one that tried would stand still.
#[tokio::test]
async fn no_thread_of_tokio_waits_for_python() {
    let _turn = TURN.lock().await;
    let program = world().await.runtime.program("rust_programs:busy").await.unwrap();
    let told = new_path("busy");
    std::fs::write(&told, [0]).unwrap();
    let busy = tokio::spawn(program.predict(json!({"question": told})).into_future());
    until("Python is busy", || std::fs::read(&told).unwrap() == [1]).await;
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        // Calls go in while Python can't answer: handing one over must not wait for it.
        drop(program.stream(json!({"question": told})).start().await.unwrap());
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        longest = longest.max(before.elapsed());
    }
    println!("the longest 1 ms sleep while Python was busy: {longest:?}");
    // A thread that waited for Python would be here after a minute, when it is handed over by itself.
    assert!(!busy.is_finished(), "this thread was held up");
    std::fs::OpenOptions::new().write(true).open(&told).unwrap().write_all(&[2]).unwrap();
    busy.await.unwrap().unwrap();
    settled(world().await).await;
    std::fs::remove_file(told).unwrap();
}

#[tokio::test]
async fn those_who_leave_keep_their_slot_until_their_work_has_ended() {
    let _turn = TURN.lock().await;
    conformance::limited(world().await, true).await;
}

#[tokio::test]
async fn a_permit_is_held_until_the_work_has_ended() {
    let _turn = TURN.lock().await;
    let world = world().await;
    let program = world.runtime.program("rust_programs:stubborn").await.unwrap().with_concurrency(1);
    let may_end = new_path("stubborn");
    let ask = json!({"question": may_end});
    let mut stream = program.stream(&ask).start().await.unwrap();
    stream.recv().await.unwrap();
    drop(stream);
    let next = tokio::spawn(program.stream(&ask).start());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((world.runtime.metrics().in_flight, next.is_finished()), (1, false), "its slot is not free yet");
    std::fs::write(&may_end, []).unwrap();
    drop(next.await.unwrap().unwrap());
    settled(world).await;
    std::fs::remove_file(may_end).unwrap();
}

#[tokio::test]
async fn a_second_start_says_that_python_is_running() {
    world().await;
    let error = Runtime::builder().venv(venv()).start().await.unwrap_err();
    assert_eq!(error, Error::AlreadyStarted);
}

#[tokio::test]
async fn a_program_in_a_thread_and_one_from_a_signature() {
    let runtime = &world().await.runtime;
    let blocking = runtime.program("rust_programs:blocking").await.unwrap();
    assert!(blocking.predict(json!({"question": "Why?"})).await.unwrap().text("answer").is_some());
    let inline = runtime.program_with("rust_programs:blocking", "inline").await.unwrap();
    assert!(inline.predict(json!({"question": "Why?"})).await.unwrap().text("answer").is_some());
    assert!(runtime.program_with("rust_programs:blocking", "sideways").await.is_err());
    let signature = runtime.program("question -> haiku").await.unwrap();
    assert_eq!(signature.schema().text.as_deref(), Some("haiku"));
    assert!(!signature.predict(json!({"question": "Why?"})).await.unwrap()["haiku"].is_null());
    let file = root().join("examples/demo.py:program");
    let demo = runtime.program(file.to_str().unwrap()).await.unwrap();
    assert_eq!(demo.schema().text.as_deref(), Some("answer"));
}

/// The work that a waker does on Python's thread may panic.
#[tokio::test]
async fn a_waker_that_panics_does_not_end_the_loop() {
    use futures_core::Stream;
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            std::panic::resume_unwind(Box::new("a user's bug"));
        }
    }
    let _turn = TURN.lock().await;
    let program = world().await.runtime.program("rust_programs:predict").await.unwrap();
    let mut stream = Box::pin(program.stream(json!({"question": "Panic? [sim ttft=0.1]"})).start().await.unwrap());
    let waker = std::task::Waker::from(std::sync::Arc::new(Panics));
    while stream.as_mut().poll_next(&mut std::task::Context::from_waker(&waker)).is_ready() {}
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    assert!(program.predict(json!({"question": "Still there?"})).await.is_ok());
    settled(world().await).await;
}

#[test]
fn attaching_is_done_in_one_module_only() {
    let mut files = vec![root().join("rust/src")];
    let mut attaching = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if std::fs::read_to_string(&path).unwrap().contains("pyo3") {
            attaching.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    assert_eq!(attaching, ["rust/src/embedded/owner.rs"]);
}
