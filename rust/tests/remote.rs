//! Python behind a server: the same conformance suite, and what only a connection has.
#![cfg(feature = "remote")]

mod common;
#[macro_use]
mod conformance;

use std::time::Duration;

use common::Server;
use conformance::{World, TURN};
use dspy_live::{Error, Runtime};
use serde_json::json;
use tokio::sync::OnceCell;

static SERVER: OnceCell<Server> = OnceCell::const_new();

async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_init(|| async {
            let sim = Server::simulator(&["--fast"]);
            let server = SERVER.get_or_init(|| async { Server::serving(&sim, &[]) }).await;
            let runtime = Runtime::remote(&server.url).api_key("secret").start().await.unwrap();
            World { runtime, sim }
        })
        .await
}

conformance!();

#[test]
fn a_consumer_that_stops() {
    conformance::run(async {
        let _turn = TURN.lock().await;
        conformance::a_slow_consumer_stops_the_lms_socket(world().await, Duration::from_millis(500)).await;
    });
}

#[test]
fn what_is_wrong_with_a_server_is_told() {
    conformance::run(async {
        world().await;
        let url = &SERVER.get().unwrap().url;
        let error = Runtime::remote(url).start().await.unwrap_err();
        assert_eq!(error.code(), "unauthorized", "{error}");
        let error = Runtime::remote("http://127.0.0.1:9").start().await.unwrap_err();
        assert!(matches!(error, Error::Connection(_)) && error.is_retryable(), "{error}");
        for wrong in ["127.0.0.1:8000", "ftp://x", "http://"] {
            assert!(matches!(Runtime::remote(wrong).start().await, Err(Error::Setup(_))), "{wrong}");
        }
        let error = world().await.runtime.program("nothing").await.unwrap_err();
        assert!(error.to_string().contains("predict, typed, failing"), "{error}");
    });
}

#[test]
fn a_shutdown_waits_and_then_cancels() {
    conformance::run(async {
        let _turn = TURN.lock().await;
        world().await;
        let runtime = Runtime::remote(&SERVER.get().unwrap().url).api_key("secret").start().await.unwrap();
        let program = runtime.program("predict").await.unwrap();
        let mut stream = program.stream(json!({"question": "Shutdown? [sim ttft=60]"})).start().await.unwrap();
        let report = runtime.shutdown(Duration::from_millis(100)).await;
        assert_eq!((report.cancelled, report.clean), (1, true));
        let error = loop {
            match stream.recv().await {
                Ok(event) => assert!(event.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, Error::Cancelled);
        assert_eq!(program.predict(json!({"question": "Late?"})).await.unwrap_err(), Error::Shutdown);
    });
}
