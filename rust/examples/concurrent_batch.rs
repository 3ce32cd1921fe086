//! Many calls, so many at once: in order, and as they are completed.

mod support;

use std::time::Instant;

use futures_util::StreamExt;
use serde_json::json;

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start().await?;
    let desk = runtime.program("shop:desk").await?;
    let messages = (1..=24).map(|n| json!({"message": format!("Where is order number {n}?")}));

    let start = Instant::now();
    let results = desk.batch(messages.clone()).concurrency(12).in_order().await;
    let good = results.iter().filter(|result| result.is_ok()).count();
    println!("{good} of {} in {:?}", results.len(), start.elapsed());
    assert_eq!(good, 24);

    let mut completed = desk.batch(messages).concurrency(12).as_completed();
    let mut first = None;
    while let Some((index, result)) = completed.next().await {
        let topic = result?.get::<String>("topic")?;
        if first.is_none() {
            println!("message {index} was done first: {topic}");
            first = Some(index);
        }
    }
    // At the LM there were never more than twelve.
    println!("{:?} at most in a run", runtime.metrics().duration.percentile(1.0).expect("runs"));
    Ok(())
}
