//! Time limits, cancelling from elsewhere, and trying again.

mod support;

use std::time::{Duration, Instant};

use dspy_live::{CancelHandle, Error, Retry};
use serde_json::json;

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start_with(|builder| builder.lm_option("num_retries", 0)).await?;
    let program = runtime.program("question -> answer").await?;
    // The markers tell the simulated LM how to behave.
    let slow = json!({"question": "Why? [sim ttft=30]"});

    let start = Instant::now();
    let error = program.predict(&slow).timeout(Duration::from_millis(300)).await.unwrap_err();
    println!("{error}, after {:?}; the LM's connection is closed", start.elapsed());
    assert_eq!(error.code(), "deadline_exceeded");

    let handle = CancelHandle::new();
    let call = program.predict(&slow).cancel_with(&handle);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        handle.cancel();
    });
    assert_eq!(call.await.unwrap_err(), Error::Cancelled);
    println!("cancelled by its handle");

    let mut stream = program.stream(&slow).start().await?;
    while let Ok(event) = stream.recv_with_timeout(Duration::from_millis(200)).await {
        println!("{:?}", event.map(|event| event.name().to_owned()));
    }
    println!("silent for 0.2 s; dropping the stream ends the run");
    drop(stream);

    let down = json!({"question": "Why? [sim fault=500]"});
    let retry = Retry::new(3).backoff(Duration::from_millis(50), Duration::from_secs(1));
    let start = Instant::now();
    let error = program.predict(&down).retry(retry.clone()).await.unwrap_err();
    println!("three tries in {:?}: {error}", start.elapsed());
    assert!(error.is_retryable());

    let refused = program.predict(json!({"question": "Why? [sim fault=401]"})).retry(retry).await.unwrap_err();
    println!("one try: {refused}");

    let answer = program.predict(json!({"question": "Why?"})).timeout(Duration::from_secs(30)).await?;
    println!("{}", answer["answer"]);
    Ok(())
}
