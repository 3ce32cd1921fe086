//! A stream from a server whose connections break: it goes on where it was, or says why it can't.
#![cfg(feature = "remote")]

mod common;

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use common::proxy::{Allowed, Cut, Proxy};
use common::{until, Server};
use dspy_live::{Error, PredictionStream, Program, Runtime, StreamEvent};
use futures_util::StreamExt;
use serde_json::json;

const NEVER: Cut = |_, _| Allowed::All;
/// In the head, between events or in the middle of one; each fourth reader gets further than the longest event.
const ANYWHERE: Cut = |random, before| match before % 4 {
    3 => Allowed::Bytes(3000 + random.below(500)),
    _ => Allowed::Bytes(random.below(1500)),
};
/// The first reader has some events, and then nobody has any.
const FOR_GOOD: Cut = |_, before| Allowed::Bytes(if before == 0 { 1500 } else { 0 });
/// The first reader has some events, and the server hears of no other one.
const NO_READER: Cut = |_, before| match before {
    0 => Allowed::Bytes(1500),
    _ => Allowed::Refused,
};
/// Tries of a client that comes back until the test lets it: with the pauses between them, a minute and more.
const MANY: u32 = 40;

struct World {
    sim: Server,
    server: Server,
    /// Keeps a run for a second without a reader.
    impatient: Server,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let sim = Server::simulator(&["--fast"]);
        let server = Server::serving(&sim, &[]);
        let impatient = Server::serving(&sim, &["--grace", "1"]);
        World { sim, server, impatient }
    })
}

/// Run a test on the one Tokio runtime of this process, one at a time: they count what the LM has seen.
fn run(test: impl Future<Output = ()>) {
    static TOKIO: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TOKIO.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(async {
        let _turn = TURN.lock().await;
        test.await;
        world().sim.until("active", |n| n == 0).await;
    });
}

/// The program behind the proxy, for a client that comes back so often.
async fn program(proxy: &Proxy, reconnects: u32) -> Program {
    let builder = Runtime::remote(&proxy.url).api_key("secret").reconnects(reconnects);
    builder.start().await.unwrap().program("predict").await.unwrap()
}

async fn endless(program: &Program) -> PredictionStream {
    program.stream(json!({"question": "On and on? [sim tps=200 length=100000]"})).start().await.unwrap()
}

async fn failure_of(mut stream: PredictionStream) -> Error {
    for _ in 0..10_000 {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("it fails in time");
        match next.expect("a failure comes before the end") {
            Ok(_) => {}
            Err(error) => {
                assert!(stream.next().await.is_none(), "it stays at its end");
                return error;
            }
        }
    }
    panic!("it goes on and on");
}

/// What a reader is told: the events' names, where tokens are one, the tokens' text, and the result.
async fn told(program: &Program, number: usize) -> (Vec<String>, String, String) {
    let ask = json!({"question": format!("Number {number}? [sim length=200 tps=1000]")});
    let mut stream = program.stream(ask).start().await.unwrap();
    let (mut names, mut text, mut result) = (Vec::new(), String::new(), String::new());
    while let Some(event) = stream.recv().await.unwrap() {
        names.push(event.name().to_owned());
        match event {
            StreamEvent::Token(token) => text.push_str(&token.text),
            StreamEvent::Prediction(prediction) => result = prediction.text("answer").unwrap().to_owned(),
            _ => {}
        }
    }
    // How the LM's text is cut into tokens is a matter of time.
    names.dedup();
    (names, text, result)
}

#[test]
fn a_stream_that_is_cut_hundreds_of_times_tells_what_an_uncut_one_does() {
    const STREAMS: usize = 20;
    run(async {
        let proxy = Proxy::start(&world().server.url, NEVER).await;
        let program = program(&proxy, 5).await;
        let all = || futures_util::future::join_all((0..STREAMS).map(|number| told(&program, number)));
        let uncut = all().await;
        let (names, text, result) = &uncut[0];
        assert_eq!(names, &["started", "token", "usage", "prediction"]);
        assert!(text == result && text.len() > 500, "{text}");
        proxy.cut_as(ANYWHERE);
        // How many bytes a stream is, and so how often it is cut, is a matter of time.
        for _ in 0..10 {
            for (number, (cut, uncut)) in all().await.iter().zip(&uncut).enumerate() {
                assert_eq!(cut, uncut, "stream {number}");
            }
            if proxy.cuts() >= 300 {
                break;
            }
        }
        println!("{} connections were cut", proxy.cuts());
        assert!(proxy.cuts() >= 200, "{}", proxy.cuts());
        assert_eq!(proxy.asked("DELETE"), 0, "a run that ended is not stopped");
    });
}

#[test]
fn whoever_leaves_has_the_run_stopped() {
    run(async {
        let proxy = Proxy::start(&world().server.url, NEVER).await;
        let program = program(&proxy, MANY).await;
        let mut stream = endless(&program).await;
        while stream.recv().await.unwrap().unwrap().token().is_none() {}
        drop(stream);
        world().sim.until("active", |n| n == 0).await;
        assert_eq!(proxy.asked("DELETE"), 1);

        // Before the server has said which run it is, and while the connection is lost.
        drop(endless(&program).await);
        proxy.cut_as(FOR_GOOD);
        let mut stream = endless(&program).await;
        while proxy.cuts() == 0 {
            let _ = stream.recv_with_timeout(Duration::from_millis(10)).await;
        }
        drop(stream);
        until("three runs were stopped", || proxy.asked("DELETE") == 3).await;
    });
}

#[test]
fn a_server_that_does_not_come_back_is_told() {
    run(async {
        let proxy = Proxy::start(&world().server.url, FOR_GOOD).await;
        let error = failure_of(endless(&program(&proxy, 2).await).await).await;
        assert!(matches!(&error, Error::Lost(why) if why.contains("2 times in a row")), "{error}");
        assert_eq!((error.code(), error.is_retryable()), ("connection_lost", true));
        assert_eq!(proxy.asked("GET /runs"), 1 + 2);
    });
}

#[test]
fn a_run_whose_grace_is_over_is_told() {
    run(async {
        let proxy = Proxy::start(&world().impatient.url, NO_READER).await;
        world().sim.reset();
        let failing = tokio::spawn(failure_of(endless(&program(&proxy, MANY).await).await));
        world().sim.until("requests", |n| n == 1).await;
        world().sim.until("active", |n| n == 0).await;
        proxy.cut_as(NEVER);
        let error = failing.await.unwrap();
        assert!(matches!(&error, Error::Lost(why) if why.contains("over") || why.contains("grace")), "{error}");
    });
}

/// As after the server's restart, or where the next request comes to another one.
#[test]
fn a_server_that_does_not_have_the_run_is_told() {
    run(async {
        let proxy = Proxy::start(&world().impatient.url, FOR_GOOD).await;
        let mut stream = endless(&program(&proxy, MANY).await).await;
        stream.recv().await.unwrap();
        proxy.cut_as(NEVER);
        proxy.lead_to(&world().server.url);
        let error = failure_of(stream).await;
        assert!(matches!(&error, Error::Lost(why) if why.contains("restarted")), "{error}");
    });
}

#[test]
fn without_reconnects_a_stream_is_one_reply() {
    run(async {
        let proxy = Proxy::start(&world().server.url, NEVER).await;
        let mut stream = endless(&program(&proxy, 0).await).await;
        while stream.recv().await.unwrap().unwrap().token().is_none() {}
        drop(stream);
        world().sim.until("active", |n| n == 0).await;
        assert_eq!((proxy.asked("POST /programs/predict/predict/stream"), proxy.asked("DELETE")), (1, 0));
    });
}

/// The Tokio runtime that carries a stream may be another one than its reader's.
#[test]
fn a_tokio_runtime_that_is_dropped_ends_its_streams_and_no_others() {
    run(async {
        let proxy = Proxy::start(&world().impatient.url, NEVER).await;
        let program = program(&proxy, 5).await;
        let carrier = tokio::runtime::Runtime::new().unwrap();
        let of_carrier = program.clone();
        let started = carrier.spawn(async move { (endless(&of_carrier).await, endless(&of_carrier).await) });
        let (mut stream, silent) = started.await.unwrap();
        while stream.recv().await.unwrap().unwrap().token().is_none() {}
        let other = tokio::spawn({
            let program = program.clone();
            async move { told(&program, 1).await }
        });
        carrier.shutdown_background();
        assert_eq!(failure_of(stream).await, Error::Shutdown);
        assert_eq!(failure_of(silent).await, Error::Shutdown);
        assert!(other.await.unwrap().1.len() > 500);
        assert!(told(&program, 2).await.1.len() > 500, "new streams start on a living runtime");
    });
}
