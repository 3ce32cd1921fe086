//! What every runtime must do, wherever Python is. Each file that includes this gives a `world()`.

use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dspy_live::{Buffer, CancelHandle, Error, Retry, Runtime, StreamEvent};
use futures_util::StreamExt;
use serde_json::json;

use crate::common::{resident, until, Server, BOUND};

/// A runtime whose programs (see `tests/programs`) ask this simulated LM.
pub struct World {
    pub runtime: Runtime,
    pub sim: Server,
}

/// One at a time: tests count what the LM has seen.
pub static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub async fn a_prediction_goes_through_serde(world: &World) {
    #[derive(serde::Serialize)]
    struct Ask {
        question: &'static str,
    }
    #[derive(serde::Deserialize)]
    struct Answer {
        answer: String,
        score: f64,
        tags: Vec<String>,
    }
    let program = world.runtime.program("rust_programs:typed").await.unwrap();
    let names = |fields: &[dspy_live::Field]| fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&program.schema().inputs), ["question"]);
    assert_eq!(names(&program.schema().outputs), ["answer", "score", "tags"]);
    assert_eq!(program.schema().text.as_deref(), Some("answer"));

    let prediction = program.predict(Ask { question: "What is Tokio?" }).await.unwrap();
    let answer: Answer = prediction.parse().unwrap();
    assert!(!answer.answer.is_empty() && answer.score.is_finite());
    assert_eq!(prediction.get::<Vec<String>>("tags").unwrap(), answer.tags);
    assert_eq!(prediction["answer"], answer.answer);
    assert!(prediction.total_tokens() > 0, "{:?}", prediction.usage);

    let map = HashMap::from([("question", "What is Tokio?")]);
    assert_eq!(program.predict(map).await.unwrap()["answer"], answer.answer);
    assert_eq!(prediction.get::<f64>("nothing").unwrap_err().code(), "invalid_value");
}

pub async fn a_stream_has_the_events_in_their_order(world: &World) {
    let program = world.runtime.program("rust_programs:typed").await.unwrap();
    let mut stream = program.stream(json!({"question": "Stream?"})).start().await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert!(matches!(events.first(), Some(StreamEvent::Started(_))), "{events:?}");
    let Some(StreamEvent::Prediction(prediction)) = events.last() else { panic!("{events:?}") };
    let text: String =
        events.iter().filter_map(|e| e.token().filter(|t| t.field == "answer")).map(|t| t.text.as_str()).collect();
    assert_eq!(prediction["answer"], text);
    assert!(events.iter().any(|e| matches!(e, StreamEvent::Partial(p) if p.field == "tags" && p.complete)));
    assert!(events.iter().any(|e| matches!(e, StreamEvent::Usage(u) if u.total_tokens > 0)));
    assert!(stream.next().await.is_none(), "it stays at its end");
}

pub async fn only_the_fields_that_were_asked_for(world: &World) {
    let program = world.runtime.program("rust_programs:typed").await.unwrap();
    let mut stream = program.stream(json!({"question": "Fields?"})).fields(["score"]).start().await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = stream.recv().await.unwrap() {
        match event {
            StreamEvent::Token(token) => panic!("{token:?}"),
            StreamEvent::Partial(partial) => seen.push(partial.field),
            _ => {}
        }
    }
    assert!(!seen.is_empty() && seen.iter().all(|field| field == "score"), "{seen:?}");
}

pub async fn collect_all_is_what_the_program_predicts(world: &World) {
    let program = world.runtime.program("rust_programs:typed").await.unwrap();
    let ask = json!({"question": "Collect?"});
    let prediction = program.predict(&ask).await.unwrap();
    let all = program.stream(&ask).start().await.unwrap().collect_all().await.unwrap();
    assert_eq!(prediction["answer"], all);
    let score = program.stream(&ask).start().await.unwrap().collect_field("score").await.unwrap();
    assert_eq!(prediction["score"].to_string(), score);
    let whole = program.stream(&ask).start().await.unwrap().prediction().await.unwrap();
    assert_eq!((whole.outputs, whole.usage.len()), (prediction.outputs, 1));
}

pub async fn errors_have_their_kind(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let error = program.predict(json!({"wrong": 1})).await.unwrap_err();
    assert!(matches!(error, Error::Input(_)) && error.to_string().contains("wrong"), "{error}");
    let error = program.predict("no object").await.unwrap_err();
    assert!(matches!(error, Error::Value(_)), "{error}");
    let error = world.runtime.program("no_such_module:thing").await.unwrap_err();
    assert!(error.to_string().contains("no_such_module") || error.to_string().contains("thing"), "{error}");

    let failing = world.runtime.program("rust_programs:failing").await.unwrap();
    let error = failing.predict(json!({"question": "x"})).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("program_failed", false));
    assert!(matches!(error, Error::Program(_)));

    let mut stream = failing.stream(json!({"question": "x"})).start().await.unwrap();
    let error = loop {
        match stream.next().await.expect("a failure comes before the end") {
            Ok(event) => assert!(matches!(event, StreamEvent::Started(_)), "{event:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "program_failed");
    assert!(stream.next().await.is_none());
}

pub async fn an_lm_that_fails_is_told_and_tried_again(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let refused = json!({"question": "Retry? [sim fault=401]"});
    let retry = Retry::new(5).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let error = program.predict(&refused).retry(retry.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Lm(_)), "{error:?}");
    assert!(!error.is_retryable());

    let down = json!({"question": "Down? [sim fault=500]"});
    world.sim.reset();
    let error = program.predict(&down).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let once = world.sim.stats()["requests"].as_u64().unwrap();
    let error = program
        .predict(&down)
        .retry(Retry::new(3).backoff(Duration::from_millis(1), Duration::from_millis(2)))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Lm(_)), "{error:?}");
    assert_eq!(world.sim.stats()["requests"].as_u64().unwrap(), once * 4);

    let decided = Retry::new(3).backoff(Duration::from_millis(1), Duration::from_millis(2)).when(|_| false);
    program.predict(&down).retry(decided).await.unwrap_err();
    assert_eq!(world.sim.stats()["requests"].as_u64().unwrap(), once * 5);
}

pub async fn a_timeout_ends_the_call_and_the_work(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let slow = json!({"question": "Timeout? [sim ttft=600]"});
    let before = world.runtime.metrics();
    world.sim.reset();
    let call = tokio::time::timeout(BOUND, program.predict(&slow).timeout(Duration::from_millis(300)).into_future());
    let error = call.await.expect("the timeout ends it").unwrap_err();
    assert_eq!(error, Error::Timeout { after: Duration::from_millis(300) });
    world.sim.until("active", |n| n == 0).await;

    let mut stream = program.stream(&slow).timeout(Duration::from_millis(300)).start().await.unwrap();
    let error = loop {
        match stream.next().await.expect("a failure comes before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Timeout { .. }));
    assert!(stream.next().await.is_none());
    world.sim.until("active", |n| n == 0).await;
    settled(world).await;
    assert_eq!(world.runtime.metrics().timed_out - before.timed_out, 2);
}

pub async fn silence_is_told_and_the_stream_goes_on(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    // A process that stands still for a while may hear nothing of a short silence.
    for seconds in [0.5, 4.0, 8.0] {
        let ask = json!({"question": format!("Silence? [sim ttft={seconds} length=3]")});
        let mut stream = program.stream(ask).start().await.unwrap();
        let (mut silent, mut last) = (0, None);
        loop {
            match stream.recv_with_timeout(Duration::from_millis(100)).await {
                Ok(Some(event)) => last = Some(event),
                Ok(None) => break,
                Err(Error::Timeout { .. }) => silent += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(last.unwrap().prediction().is_some(), "it went on to its end");
        if silent >= 2 {
            return;
        }
    }
    panic!("no silence was told");
}

pub async fn dropping_a_stream_closes_the_lms_connection(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let endless = json!({"question": "Drop? [sim tps=200 length=100000]"});
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        world.sim.reset();
        let mut stream = program.stream(&endless).start().await.unwrap();
        while stream.recv().await.unwrap().expect("it goes on").token().is_none() {}
        drop(stream);
        longest = longest.max(world.sim.until("disconnects", |n| n == 1).await);
    }
    println!("the LM saw the disconnect of a dropped stream within {longest:?}");
    world.sim.reset();
    let call = tokio::spawn(program.predict(json!({"question": "Drop? [sim ttft=30]"})).into_future());
    world.sim.until("active", |n| n == 1).await;
    call.abort();
    let took = world.sim.until("active", |n| n == 0).await;
    println!("the LM saw the disconnect of a dropped call within {took:?}");
    settled(world).await;
}

pub async fn a_handle_cancels_calls_and_streams(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let slow = json!({"question": "Handle? [sim ttft=30]"});
    world.sim.reset();
    let handle = CancelHandle::new();
    let call = tokio::spawn(program.predict(&slow).cancel_with(&handle).into_future());
    let mut stream = program.stream(&slow).cancel_with(&handle).start().await.unwrap();
    world.sim.until("active", |n| n == 2).await;
    handle.cancel();
    assert_eq!(call.await.unwrap().unwrap_err(), Error::Cancelled);
    let last = loop {
        match stream.next().await.expect("the cancellation is told") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(last, Error::Cancelled);
    assert!(stream.next().await.is_none());
    world.sim.until("active", |n| n == 0).await;
    assert_eq!(program.predict(&slow).cancel_with(&handle).await.unwrap_err(), Error::Cancelled);

    let mut stream = program.stream(&slow).start().await.unwrap();
    stream.cancel_handle().cancel();
    assert_eq!(stream.next().await.unwrap().unwrap_err(), Error::Cancelled);
    settled(world).await;
}

pub async fn a_batch_in_order_and_as_completed(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let ask = |n: usize| json!({"question": format!("Number {n}? [sim ttft=0.02]")});
    let slow = json!({"question": "Slow? [sim ttft=600]"});
    world.sim.reset();
    let results = program.batch((0..12).map(ask)).concurrency(4).in_order().await;
    assert_eq!(results.len(), 12);
    let peak = world.sim.stats()["peak_active"].as_u64().unwrap();
    assert!((2..=4).contains(&peak), "{peak}");
    for (n, result) in results.into_iter().enumerate() {
        let alone = program.predict(ask(n)).await.unwrap();
        assert_eq!(result.unwrap().outputs, alone.outputs, "{n}");
    }

    let asks = [slow].into_iter().chain((1..6).map(ask)).chain([json!({"wrong": 1})]);
    let mut stream = program.batch(asks).concurrency(4).as_completed();
    let mut order = Vec::new();
    let mut failed = Vec::new();
    while order.len() < 6 {
        let (index, result) = stream.next().await.expect("the slow one holds nobody up");
        order.push(index);
        if result.is_err() {
            failed.push(index);
        }
    }
    order.sort_unstable();
    assert_eq!((order, failed), ((1..7).collect(), vec![6]), "whoever is ready comes before the slow one");
    drop(stream);
    let all = program.batch((0..6).map(ask)).concurrency(4).as_completed();
    assert_eq!(all.count().await, 6);

    let endless = program.batch((0..).map(ask)).concurrency(3).as_completed().take(5);
    assert_eq!(endless.count().await, 5);
    settled(world).await;
}

pub async fn a_limited_handle_never_has_more_at_the_lm(world: &World) {
    limited(world, false).await;
}

/// With `leaving`, some leave early: their slot must not be free before their work has ended.
pub async fn limited(world: &World, leaving: bool) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap().with_concurrency(2);
    world.sim.reset();
    let calls = (0..8).map(|n| {
        let program = program.clone();
        tokio::spawn(async move {
            let ask = json!({"question": format!("Limit {n}? [sim ttft=0.1]")});
            let after = Duration::from_millis(if leaving && n % 2 == 0 { 50 } else { 5000 });
            program.predict(ask).timeout(after).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let _ = call.await.unwrap();
    }
    settled(world).await;
    assert!(world.sim.stats()["peak_active"].as_u64().unwrap() <= 2);

    let rated = program.with_rate(5, Duration::from_millis(500)).unwrap();
    let start = Instant::now();
    for result in rated.batch((0..10).map(|n| json!({"question": n.to_string()}))).concurrency(10).in_order().await {
        result.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
}

pub async fn buffers_are_bounded_and_readable(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let ask = json!({"question": "Buffer? [sim length=3000]"});
    let stream = program.stream(&ask).buffer(8).start().await.unwrap();
    until("the buffer is full", || stream.waiting() == 8).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((stream.buffer_size(), stream.waiting()), (8, 8));
    drop(stream);

    let adaptive = Buffer::Adaptive { min: 2, max: 64 };
    let mut stream = program.stream(&ask).buffer(adaptive).start().await.unwrap();
    assert_eq!(stream.buffer_size(), 2);
    let mut most = 0;
    while stream.recv().await.unwrap().is_some() {
        if most < 8 {
            // Long enough to fill it, short enough to be called quick.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        most = most.max(stream.buffer_size());
        assert!(stream.waiting() <= stream.buffer_size());
    }
    assert!(most > 2 && most <= 64, "{most}");
}

/// A reply of 100 MB, and a consumer that stops for a while: the LM's socket is read no more, memory stays flat, and
/// in the end nothing is missing.
pub async fn a_slow_consumer_stops_the_lms_socket(world: &World, pause: Duration) {
    const SIZE: usize = 100_000_000;
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let ask = json!({"question": format!("Big? [sim size={SIZE}]")});
    world.sim.reset();
    let mut stream = program.stream(&ask).buffer(16).fields(["answer"]).start().await.unwrap();
    while !stream.recv().await.unwrap().expect("it goes on").name().eq("started") {}
    // What the sockets' own buffers take, they take first: some megabytes. Nothing more for three seconds is longer than
    // one of the processes stands still on a busy machine.
    let (mut taken, mut quiet) = (0, 0);
    for _ in 0..60 {
        let before = std::mem::replace(&mut taken, world.sim.stats()["bytes_taken"].as_u64().unwrap());
        quiet = if taken > 1 << 20 && taken - before < 4096 { quiet + 1 } else { 0 };
        if quiet == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let memory = resident();
    tokio::time::sleep(pause).await;
    let (later, more) = (world.sim.stats()["bytes_taken"].as_u64().unwrap(), resident());
    let grown = more.saturating_sub(memory) / 1024;
    println!(
        "{taken} bytes of {SIZE} had left the LM; in {pause:?} of nobody reading, {} more; memory grew by {grown} kB",
        later - taken
    );
    // The replies of /stats itself are among them.
    assert!(later - taken < 4096, "the LM's socket is still read: {taken} {later}");
    assert!(taken < (SIZE / 2) as u64, "{taken}");
    assert!(grown < 4096, "{grown} kB");
    // Reading on lets no more events gather than before: what grows then is the reply itself, and its result.
    let (mut length, mut result) = (0, 0);
    let (mut streaming, mut ending) = (0, 0);
    while let Some(event) = stream.recv().await.unwrap() {
        assert!(stream.waiting() < 16, "{} events wait beside this one", stream.waiting());
        let now = resident().saturating_sub(memory) >> 20;
        match &event {
            StreamEvent::Token(token) if !token.last => streaming = streaming.max(now),
            _ => ending = ending.max(now),
        }
        length += event.token().map_or(0, |token| token.text.len());
        result = event.prediction().map_or(result, |prediction| prediction.text("answer").expect("text").len());
    }
    println!(
        "{length} of {result} bytes came after that; memory grew by {streaming} MB while they did, and by {ending} MB with the whole result"
    );
    assert!(result >= SIZE * 99 / 100 && length == result, "{length} {result}");
    world.sim.until("active", |n| n == 0).await;
    settled(world).await;
}

pub async fn a_consumer_that_pauses_misses_nothing(world: &World) {
    let program = world.runtime.program("rust_programs:predict").await.unwrap();
    let ask = json!({"question": "Pauses? [sim size=200000]"});
    let mut stream = program.stream(&ask).buffer(4).start().await.unwrap();
    let (mut text, mut count, mut result) = (String::new(), 0, None);
    while let Some(event) = stream.recv().await.unwrap() {
        count += 1;
        if count % 1000 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match event {
            StreamEvent::Token(token) => text.push_str(&token.text),
            StreamEvent::Prediction(prediction) => result = Some(prediction),
            _ => {}
        }
    }
    assert!(text.len() >= 199_000, "{}", text.len());
    assert_eq!(result.unwrap()["answer"], text);
}

/// Run a test on the one Tokio runtime of this process, as a service would: connections belong to it.
pub fn run(test: impl Future<Output = ()>) {
    static TOKIO: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    TOKIO.get_or_init(build).block_on(test);
}

/// Wait until no run is in flight.
pub async fn settled(world: &World) {
    until("no run is in flight", || world.runtime.metrics().in_flight == 0).await;
}

/// Makes a test of each.
#[macro_export]
macro_rules! conformance {
    ($($name:ident)+) => {$(
        #[test]
        fn $name() {
            $crate::conformance::run(async {
                let _turn = $crate::conformance::TURN.lock().await;
                $crate::conformance::$name(world().await).await;
            });
        }
    )+};
    () => {
        $crate::conformance! {
            a_prediction_goes_through_serde
            a_stream_has_the_events_in_their_order
            only_the_fields_that_were_asked_for
            collect_all_is_what_the_program_predicts
            errors_have_their_kind
            an_lm_that_fails_is_told_and_tried_again
            a_timeout_ends_the_call_and_the_work
            silence_is_told_and_the_stream_goes_on
            dropping_a_stream_closes_the_lms_connection
            a_handle_cancels_calls_and_streams
            a_batch_in_order_and_as_completed
            a_limited_handle_never_has_more_at_the_lm
            buffers_are_bounded_and_readable
            a_consumer_that_pauses_misses_nothing
        }
    };
}
