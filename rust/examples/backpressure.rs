//! A consumer that is slower than the LM: what waits is bounded, and the LM's socket is read at the consumer's pace.

mod support;

use std::time::Duration;

use dspy_live::Buffer;
use serde_json::json;

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start().await?;
    let program = runtime.program("question -> answer").await?;

    // The marker asks the simulated LM for a long reply, as fast as the socket takes it; a real one ignores it.
    let question = json!({"question": "Tell me everything. [sim length=600 ttft=0 tps=none]"});
    let mut stream = program.stream(&question).buffer(8).start().await?;
    let (mut read, mut most) = (0, 0);
    while let Some(event) = stream.recv().await? {
        most = most.max(stream.waiting());
        read += usize::from(event.token().is_some());
        if read % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("{read} tokens; at most {most} waited in a buffer of {}", stream.buffer_size());
    assert!(most <= 8);

    // One that grows for a consumer that is only interrupted now and then.
    let mut stream = program.stream(&question).buffer(Buffer::Adaptive { min: 4, max: 256 }).start().await?;
    let mut sizes = vec![stream.buffer_size()];
    while stream.recv().await?.is_some() {
        tokio::time::sleep(Duration::from_micros(500)).await;
        if sizes.last() != Some(&stream.buffer_size()) {
            sizes.push(stream.buffer_size());
        }
    }
    println!("the adaptive buffer's sizes: {sizes:?}");
    Ok(())
}
