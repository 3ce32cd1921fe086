//! A run's events from the server into its inbox: from one reply, or from as many as lost connections make of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::events::{Events, Next};
use super::http::{Http, Request};
use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::inbox::Inbox;
use crate::retry::random;

/// Where the events go.
pub(super) struct Reading {
    pub http: Arc<Http>,
    pub inbox: Arc<Inbox>,
    pub credits: Arc<Semaphore>,
    /// Only tokens and partial values of these fields.
    pub wanted: Option<Vec<String>>,
}

impl Reading {
    /// Read a run that lives as long as its one reply.
    pub(super) async fn one_reply(&self, request: Request) -> Result<()> {
        let mut events = Events::new(self.http.send(request).await?);
        while let Next::Event { event, .. } = events.next().await? {
            self.take(event).await?;
        }
        Ok(())
    }

    /// Hand an event on once its reader has room.
    async fn take(&self, event: StreamEvent) -> Result<()> {
        let field = match &event {
            StreamEvent::Token(token) => Some(&token.field),
            StreamEvent::Partial(partial) => Some(&partial.field),
            _ => None,
        };
        if let (Some(field), Some(wanted)) = (field, &self.wanted) {
            if !wanted.contains(field) {
                return Ok(());
            }
        }
        // Not reading on is the backpressure: the server's socket fills up, and then the LM's.
        self.credits.acquire().await.map_err(|_| Error::Shutdown)?.forget();
        self.inbox.deliver([event]);
        Ok(())
    }
}

/// Reads a run that survives a lost connection: the rest is asked for again, after the last event that came.
pub(super) struct Resumable<'a> {
    reading: &'a Reading,
    run: &'a str,
    reconnects: u32,
    /// The number of the last event that was handed on; the server counts from 1.
    last: u64,
    predicted: bool,
    over: bool,
    /// The events were asked for more than once.
    again: bool,
}

impl<'a> Resumable<'a> {
    pub(super) fn new(reading: &'a Reading, run: &'a str, reconnects: u32) -> Self {
        Self { reading, run, reconnects, last: 0, predicted: false, over: false, again: false }
    }

    /// True where the server has said that the run is over, or that it has no such run.
    pub(super) fn over(&self) -> bool {
        self.over
    }

    /// Read to the run's end.
    pub(super) async fn read(&mut self) -> Result<()> {
        let mut tries = 0;
        loop {
            let before = self.last;
            let why = match self.read_one_reply().await {
                // The prediction is the last event that anybody wants.
                _ if self.predicted => return Ok(()),
                Err(error @ (Error::Connection(_) | Error::Overloaded(_))) if !self.over => error,
                end => return end,
            };
            if self.last > before {
                tries = 0;
            }
            if tries == self.reconnects {
                return Err(Error::Lost(format!("tried {tries} times in a row to go on after event {before}: {why}")));
            }
            tracing::debug!(run = self.run, after = self.last, %why, "the connection was lost; asking for the rest");
            tokio::time::sleep(pause(tries, random()).max(why.retry_after().unwrap_or_default())).await;
            tries += 1;
            self.again = true;
        }
    }

    async fn read_one_reply(&mut self) -> Result<()> {
        let request = self.reading.http.events(self.run, self.last)?;
        let reply = self.reading.http.send(request).await.map_err(|error| self.refused(error))?;
        if reply.status() == hyper::StatusCode::NO_CONTENT {
            self.over = true;
            return Err(Error::Lost("the run is over, and the server no longer keeps its events".into()));
        }
        let mut events = Events::new(reply);
        loop {
            match events.next().await? {
                Next::Done => {
                    self.over = true;
                    return Ok(());
                }
                Next::Failed(error) => {
                    self.over = true;
                    return Err(self.ended_with(error));
                }
                Next::Event { number, event } => self.take(number, event).await?,
            }
        }
    }

    /// Hand on an event that is the next one; what came before the connection was lost is not told twice.
    async fn take(&mut self, number: Option<u64>, event: StreamEvent) -> Result<()> {
        let number = number.unwrap_or(self.last + 1);
        if number <= self.last {
            return Ok(());
        }
        if number > self.last + 1 {
            return Err(Error::Lost(format!("the events {} to {} did not come", self.last + 1, number - 1)));
        }
        let predicted = event.prediction().is_some();
        self.reading.take(event).await?;
        self.last = number;
        self.predicted |= predicted;
        Ok(())
    }

    /// Nobody here has cancelled it: whoever does stops reading.
    fn ended_with(&self, error: Error) -> Error {
        match error {
            Error::Cancelled if self.again => {
                Error::Lost("the server cancelled the run, as it does when nobody has read it for its grace".into())
            }
            other => other,
        }
    }

    /// What the server's refusal to go on means.
    fn refused(&mut self, error: Error) -> Error {
        let why = match error.code() {
            "not_found" if self.last == 0 => {
                "the server does not have it. Behind a load balancer, the request may have come to another server than \
                 the one that began the run: see RemoteBuilder::reconnects"
            }
            "not_found" => "the server no longer has it: its grace is over, or the server was restarted",
            "gone" => "the server no longer keeps the events that were lost with the connection",
            _ => return error,
        };
        // What is gone is the log; the run itself may go on.
        self.over = error.code() == "not_found";
        Error::Lost(why.into())
    }
}

/// The wait before the next try, when `tried` in a row have brought nothing: half of it is chance.
fn pause(tried: u32, random: f64) -> Duration {
    let full = Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(tried)).min(Duration::from_secs(2));
    full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tries_come_apart_and_no_further_than_two_seconds() {
        let waits: Vec<_> = (0..8).map(|tried| pause(tried, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(pause(u32::MAX, 0.0), Duration::from_secs(1));
    }
}
