//! Latency percentiles, counters, and a report for each run.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

#[tokio::main]
async fn main() -> support::Fallible {
    let slow = Arc::new(AtomicUsize::new(0));
    let count = slow.clone();
    let (runtime, _lm) = support::start_with(move |builder| {
        builder.max_in_flight(8).on_run_end(move |run| {
            if run.duration > Duration::from_millis(600) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    })
    .await?;
    let program = runtime.program("question -> answer").await?;

    let calls: Vec<_> = (0..40)
        .map(|n| {
            let program = program.clone();
            tokio::spawn(async move {
                let stream = program.stream(json!({"question": format!("What is {n}?")})).start().await?;
                // Some readers leave early.
                if n % 10 == 0 {
                    Ok(String::new())
                } else {
                    stream.collect_all().await
                }
            })
        })
        .collect();
    for call in calls {
        call.await??;
    }
    runtime.shutdown(Duration::from_secs(5)).await;

    let metrics = runtime.metrics();
    println!("{} ended well, {} were cancelled, {} in flight", metrics.succeeded, metrics.cancelled, metrics.in_flight);
    for (name, latencies) in [("first token", &metrics.first_token), ("whole run", &metrics.duration)] {
        let at = |q| latencies.percentile(q).unwrap_or_default();
        println!("{name}: p50 {:?}  p90 {:?}  p99 {:?}", at(0.5), at(0.9), at(0.99));
    }
    println!("{} tokens in {} crossings from Python", metrics.tokens, metrics.crossings);
    println!("{} runs took more than 0.6 s", slow.load(Ordering::Relaxed));
    print!("{}", metrics.prometheus());
    assert_eq!((metrics.succeeded, metrics.cancelled, metrics.in_flight), (36, 4, 0));
    Ok(())
}
