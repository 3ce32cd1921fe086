//! Python in this process: the conformance suite, and what only an embedded runtime has.
#![cfg(feature = "embedded")]

mod common;
#[macro_use]
mod conformance;

use std::time::{Duration, Instant};

use common::{root, venv, Server};
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
                .on_run_end(|_| panic!("a user's bug"))
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
    conformance::a_slow_consumer_stops_the_lms_socket(world().await, Duration::from_secs(10)).await;
}
