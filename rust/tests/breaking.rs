//! Used wrongly, or left at a bad moment: each has a typed error, and everybody else goes on.
#![cfg(feature = "embedded")]

mod common;

use std::future::IntoFuture;

use common::{root, until, venv, Server, BOUND};
use dspy_live::{Error, Program, Runtime};
use futures_util::future::join_all;
use serde_json::{json, Value};
use tokio::sync::OnceCell;

struct World {
    runtime: Runtime,
    sim: Server,
}

async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    let make = || async {
        let sim = Server::simulator(&["--fast"]);
        let builder = Runtime::builder().venv(venv()).module_path(root().join("rust/tests/programs"));
        let builder = builder.lm("openai/simulated").api_base(&sim.url).api_key("any");
        let runtime = builder.lm_option("cache", false).lm_option("num_retries", 0).start().await.unwrap();
        World { runtime, sim }
    };
    WORLD.get_or_init(make).await
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn nothing_is_left(world: &World) {
    until("no run is in flight", || world.runtime.metrics().in_flight == 0).await;
    world.sim.until("active", |n| n == 0).await;
}

/// The text that came, and the one in the result.
async fn read(program: &Program, ask: Value) -> (String, String) {
    let mut stream = program.stream(ask).start().await.unwrap();
    let (mut text, mut result) = (String::new(), String::new());
    while let Some(event) = stream.recv().await.unwrap() {
        if let Some(token) = event.token().filter(|token| token.field == "answer") {
            text.push_str(&token.text);
        }
        if let Some(prediction) = event.prediction() {
            result = prediction.text("answer").unwrap().to_owned();
        }
    }
    (text, result)
}

async fn endless(program: &Program) -> dspy_live::PredictionStream {
    program.stream(json!({"question": "On and on? [sim tps=200 length=100000]"})).start().await.unwrap()
}

#[tokio::test]
async fn two_programs_at_once_and_one_that_is_unloaded_under_its_run() {
    let _turn = TURN.lock().await;
    let world = world().await;
    let one = world.runtime.program("rust_programs:predict").await.unwrap();
    let two = world.runtime.program("rust_programs:typed").await.unwrap();
    let mut left = endless(&one).await;
    drop(one);
    while left.recv().await.unwrap().unwrap().token().is_none() {}
    let again = world.runtime.program("rust_programs:predict").await.unwrap();
    let asks = (0..20).map(|n| json!({"question": format!("Number {n}?")}));
    let both = asks.map(|ask| async { tokio::join!(read(&again, ask.clone()), read(&two, ask)) });
    for ((text, result), (typed, of_typed)) in join_all(both).await {
        assert!(!text.is_empty() && text == result, "{text:?} {result:?}");
        assert_eq!(typed, of_typed);
    }
    drop(left);
    nothing_is_left(world).await;
}

#[tokio::test]
async fn a_consumer_that_panics_leaves_its_run() {
    let _turn = TURN.lock().await;
    let world = world().await;
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let stream = endless(&program).await;
    let call = program.clone();
    let panics = tokio::spawn(async move {
        let mut stream = stream;
        while stream.recv().await.unwrap().unwrap().token().is_none() {}
        std::panic::resume_unwind(Box::new("a user's bug"));
    });
    let inside_a_call = tokio::spawn(async move {
        let down = json!({"question": "Down? [sim fault=500]"});
        let retry = dspy_live::Retry::new(2).when(|_| std::panic::resume_unwind(Box::new("a user's bug")));
        call.predict(down).retry(retry).await
    });
    assert!(panics.await.unwrap_err().is_panic());
    assert!(inside_a_call.await.unwrap_err().is_panic());
    nothing_is_left(world).await;
    assert!(program.predict(json!({"question": "Still there?"})).await.is_ok());
}

#[tokio::test]
async fn a_tokio_runtime_that_is_dropped_ends_its_streams_and_no_others() {
    let _turn = TURN.lock().await;
    let world = world().await;
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let other = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..20 {
        let program = program.clone();
        other.spawn(async move {
            let mut stream = endless(&program).await;
            while stream.recv().await.is_ok() {}
        });
    }
    let call = other.spawn(program.predict(json!({"question": "Slow? [sim ttft=60]"})).into_future());
    world.sim.until("active", |n| n == 21).await;
    other.shutdown_background();
    assert!(call.await.unwrap_err().is_cancelled());
    nothing_is_left(world).await;
    let (text, result) = read(&program, json!({"question": "And here?"})).await;
    assert!(!text.is_empty() && text == result);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_of_which_half_are_dropped() {
    let _turn = TURN.lock().await;
    let world = world().await;
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let before = world.runtime.metrics();
    let streams = (0..200).map(|number| {
        let program = program.clone();
        tokio::spawn(async move {
            if number % 2 == 1 {
                let mut stream = endless(&program).await;
                // Some before anything came, some in the middle of it.
                for _ in 0..number % 7 {
                    stream.recv().await.unwrap().unwrap();
                }
                return;
            }
            let (text, result) = read(&program, json!({"question": format!("Number {number}?")})).await;
            assert!(!text.is_empty() && text == result, "{number}: {text:?} {result:?}");
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    nothing_is_left(world).await;
    let after = world.runtime.metrics();
    assert_eq!((after.succeeded - before.succeeded, after.cancelled - before.cancelled), (100, 100));
}

#[tokio::test]
async fn whatever_a_program_raises_is_that_runs_error() {
    let world = world().await;
    let program = world.runtime.program("rust_programs:raising").await.unwrap();
    // What is no Exception is told of by one.
    let wrapped = "dspy_live.core.errors.ProgramFailed";
    let cases = [
        ("surrogate", "ValueError", "half a pair: ?"),
        ("nul", "ValueError", "a\0b\u{1b}[31m\u{202e}"),
        ("empty", "ValueError", "ValueError"),
        ("mute", "rust_programs.Mute", "Mute"),
        ("no text", "ValueError", "{'a': {1, 2}}"),
        ("group", "ExceptionGroup", "two (2 sub-exceptions)"),
        ("exit", wrapped, "the program raised SystemExit"),
        ("interrupt", wrapped, "the program raised KeyboardInterrupt"),
        ("stop", "StopAsyncIteration", "over"),
        ("base", wrapped, "the program raised BaseException"),
        ("later", wrapped, "the program raised SystemExit"),
    ];
    for (question, kind, text) in cases {
        let ask = json!({"question": question});
        let call = tokio::time::timeout(BOUND, program.predict(&ask).into_future());
        let error = call.await.unwrap_or_else(|_| panic!("{question} hangs")).unwrap_err();
        let failure = error.failure().unwrap_or_else(|| panic!("{question}: {error:?}"));
        assert_eq!(failure.kind, kind, "{question}: {error:?}");
        assert!(failure.message.contains(text), "{question}: {error:?}");
    }
    let error = program.predict(json!({"question": "long"})).await.unwrap_err();
    assert_eq!(error.failure().unwrap().message.len(), 5_000_000);
    assert_eq!(program.predict(json!({"question": "cancelled"})).await.unwrap_err(), Error::Cancelled);
    let (text, result) =
        read(&world.runtime.program("rust_programs:predict").await.unwrap(), json!({"question": "?"})).await;
    assert_eq!(text, result, "everybody else goes on");
}
