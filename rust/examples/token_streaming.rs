//! Print a reply as the LM writes it; typed fields come as values, and the whole result comes last.

mod support;

use std::io::Write;

use dspy_live::StreamEvent;
use futures_util::StreamExt;
use serde_json::json;

#[tokio::main]
async fn main() -> support::Fallible {
    let (runtime, _lm) = support::start().await?;
    let desk = runtime.program("shop:desk").await?;

    let mut stream = desk.stream(json!({"message": "Can I send these shoes back?"})).start().await?;
    let (mut tokens, mut text) = (0, String::new());
    while let Some(event) = stream.next().await {
        match event? {
            StreamEvent::Token(token) if token.field == "reply" => {
                print!("{}", token.text);
                std::io::stdout().flush()?;
                text.push_str(&token.text);
                tokens += 1;
            }
            StreamEvent::Partial(partial) if partial.complete => println!("[{} = {}]", partial.field, partial.value),
            // What was said so far is void: an LM call is made again.
            StreamEvent::Restart(restart) => {
                println!("\n({}: it begins again)", restart.reason);
                text.clear();
            }
            StreamEvent::Prediction(prediction) => {
                println!("\n{tokens} tokens");
                assert_eq!(prediction["reply"], text);
            }
            _ => {}
        }
    }
    assert!(tokens > 1);

    // Only one field, as one text.
    let reply = desk.stream(json!({"message": "Thanks!"})).fields(["reply"]).start().await?.collect_all().await?;
    println!("{reply}");
    Ok(())
}
