//! Server-sent events to events of a run.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::Response;

use super::http::{broken, error_of};
use super::sse::Parser;
use crate::error::{Error, Result};
use crate::event::StreamEvent;

/// What comes next in a reply.
#[expect(clippy::large_enum_variant, reason = "an allocation for every token would cost more than the copy")]
pub(super) enum Next {
    /// An event and its number within the run, where it has one.
    Event { number: Option<u64>, event: StreamEvent },
    /// The run has ended well.
    Done,
    /// The run has failed.
    Failed(Error),
}

/// Reads one reply.
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    pub(super) fn new(reply: Response<Incoming>) -> Self {
        Self { body: reply.into_body(), parser: Parser::default() }
    }

    /// What comes next; [`Error::Connection`] where the reply ends before the run does.
    pub(super) async fn next(&mut self) -> Result<Next> {
        loop {
            if let Some(found) = self.parser.next()? {
                return match found.name.as_str() {
                    "done" => Ok(Next::Done),
                    "error" => Ok(Next::Failed(error_of(found.data.as_bytes()).unwrap_or_else(|| {
                        Error::Value(format!("an error of the server's that can't be read: {}", found.data))
                    }))),
                    _ => {
                        let event = StreamEvent::from_json(&found.name, &found.data)?;
                        Ok(Next::Event { number: found.number(), event })
                    }
                };
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(broken)?.into_data() {
                        self.parser.feed(&data);
                    }
                }
                None => return Err(Error::Connection("the server's reply ended before the run did".into())),
            }
        }
    }
}
