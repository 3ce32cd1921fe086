//! Call a program with a struct, read its result into another, two calls at once.

mod support;

use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

#[derive(Debug, Deserialize)]
struct Answer {
    topic: String,
    urgent: bool,
    reply: String,
}

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start().await?;
    let desk = runtime.program("shop:desk").await?;
    let haiku = runtime.program("topic -> haiku").await?;
    println!("{} asks {}", desk.schema().name, desk.schema().lm);

    let ask = Message { message: "My parcel has not come yet." };
    let (answer, poem) = tokio::join!(desk.predict(ask), haiku.predict(serde_json::json!({"topic": "parcels"})));
    let answer = answer?;
    let tokens = answer.total_tokens();
    let Answer { topic, urgent, reply } = answer.parse()?;
    println!("{topic}, urgent: {urgent}, {tokens} tokens\n{reply}");
    println!("{}", poem?["haiku"]);

    assert!(tokens > 0 && !reply.is_empty());
    assert!(runtime.shutdown(std::time::Duration::from_secs(5)).await.clean);
    Ok(())
}
