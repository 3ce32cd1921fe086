//! What Python's thread and all others share. Nothing here knows Python: plain queues, tables and bytes.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::{oneshot, Notify};

use crate::error::{Error, Result, WireFailure};
use crate::event::StreamEvent;
use crate::inbox::{Control, Inbox};
use crate::metrics::{Metrics, Outcome};
use crate::schema::Schema;

/// What Python's thread is asked to do; `dspy_live.embed.wire` has the other side.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Command<'a> {
    Load {
        id: u64,
        target: &'a str,
        execution: Option<&'a str>,
    },
    Run {
        id: u64,
        program: u64,
        inputs: &'a Map<String, Value>,
        stream: bool,
        fields: Option<&'a [String]>,
        credits: Option<usize>,
        config: &'a Map<String, Value>,
    },
    Credit {
        id: u64,
        n: usize,
    },
    Cancel {
        id: u64,
    },
    Unload {
        id: u64,
    },
    Shutdown {
        patience: f64,
    },
}

#[derive(Default)]
struct Outgoing {
    /// Commands as a JSON array that is still open; empty where there are none.
    text: Vec<u8>,
    /// A byte is on its way: the loop will come and take everything.
    signalled: bool,
}

#[derive(Default)]
struct Tables {
    runs: HashMap<u64, Arc<Inbox>>,
    loads: HashMap<u64, oneshot::Sender<Result<Schema>>>,
    dead: Option<Error>,
}

pub(super) struct Shared {
    outgoing: Mutex<Outgoing>,
    wake: UnixStream,
    tables: Mutex<Tables>,
    next: AtomicU64,
    idle: Notify,
    ended: Notify,
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Also returns the end of the socket that Python's loop reads.
    pub(super) fn new(metrics: Arc<Metrics>) -> Result<(Arc<Self>, UnixStream)> {
        let io = |error: std::io::Error| Error::Setup(format!("no pair of sockets can be made: {error}"));
        let (wake, woken) = UnixStream::pair().map_err(io)?;
        wake.set_nonblocking(true).map_err(io)?;
        let shared = Self {
            outgoing: Mutex::default(),
            wake,
            tables: Mutex::default(),
            next: AtomicU64::new(1),
            idle: Notify::new(),
            ended: Notify::new(),
            metrics,
        };
        Ok((Arc::new(shared), woken))
    }

    // For all threads but Python's.

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Hand over a command. Never waits, and wakes the loop once for all that gather until it comes.
    pub(super) fn send(&self, command: &Command<'_>) {
        let text = serde_json::to_vec(command).expect("commands are plain data");
        let mut outgoing = lock(&self.outgoing);
        let before = if outgoing.text.is_empty() { b'[' } else { b',' };
        outgoing.text.push(before);
        outgoing.text.extend_from_slice(&text);
        let wake = !std::mem::replace(&mut outgoing.signalled, true);
        drop(outgoing);
        if wake {
            // It can't fill up, there is one byte at most; it fails when the loop has gone, which the tables know.
            let _ = (&self.wake).write(&[1]);
        }
    }

    /// Await the schema of a program that is about to be loaded.
    pub(super) fn expect_load(&self, id: u64) -> Result<oneshot::Receiver<Result<Schema>>> {
        let (answer, answered) = oneshot::channel();
        let mut tables = lock(&self.tables);
        if let Some(error) = &tables.dead {
            return Err(error.clone());
        }
        tables.loads.insert(id, answer);
        Ok(answered)
    }

    /// Have what a run produces delivered to `inbox`.
    pub(super) fn expect_run(&self, id: u64, inbox: Arc<Inbox>) -> Result<()> {
        let mut tables = lock(&self.tables);
        if let Some(error) = &tables.dead {
            return Err(error.clone());
        }
        tables.runs.insert(id, inbox);
        Ok(())
    }

    /// Runs whose work has not ended.
    pub(super) fn running(&self) -> usize {
        lock(&self.tables).runs.len()
    }

    /// Wait until no run is left.
    pub(super) async fn idle(&self) {
        wait(&self.idle, || self.running() == 0).await;
    }

    /// Wait until Python's thread has ended.
    pub(super) async fn ended(&self) {
        wait(&self.ended, || lock(&self.tables).dead.is_some()).await;
    }

    /// Why nothing is answered any more.
    pub(super) fn gone(&self) -> Error {
        lock(&self.tables).dead.clone().unwrap_or(Error::Shutdown)
    }

    // For Python's thread.

    /// All commands that wait, as a JSON array.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut outgoing = lock(&self.outgoing);
        outgoing.signalled = false;
        let mut text = std::mem::take(&mut outgoing.text);
        drop(outgoing);
        if text.is_empty() {
            text.push(b'[');
        }
        text.push(b']');
        text
    }

    /// Distribute one batch: `[[id, events, end], …]`.
    pub(super) fn deliver(&self, batch: &[u8]) -> Result<()> {
        self.metrics.crossed();
        match serde_json::from_slice::<Vec<(u64, Vec<StreamEvent>, End)>>(batch) {
            Ok(replies) => replies.into_iter().for_each(|(id, events, end)| self.deliver_one(id, events, end)),
            Err(_) => self.deliver_apart(batch)?,
        }
        Ok(())
    }

    /// As [`deliver`](Self::deliver), for a batch with something in it that can't be read, such as a number beyond
    /// all bounds: that run fails, the others get what is theirs.
    fn deliver_apart(&self, batch: &[u8]) -> Result<()> {
        let unreadable = |error| Error::value("what Python sent can't be read", error);
        let replies: Vec<(u64, &RawValue, &RawValue)> = serde_json::from_slice(batch).map_err(unreadable)?;
        for (id, events, end) in replies {
            match (serde_json::from_str(events.get()), serde_json::from_str(end.get())) {
                (Ok(events), Ok(end)) => self.deliver_one(id, events, end),
                (Err(error), _) | (_, Err(error)) => {
                    self.send(&Command::Cancel { id });
                    let inbox = lock(&self.tables).runs.get(&id).cloned();
                    if let Some(inbox) = inbox {
                        inbox.abandon(Outcome::Failed, Some(unreadable(error)));
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver_one(&self, id: u64, events: Vec<StreamEvent>, end: End) {
        let mut tables = lock(&self.tables);
        if let Some(answer) = tables.loads.remove(&id) {
            drop(tables);
            let _ = answer.send(loaded(events, end));
            return;
        }
        let over = !matches!(end, End::No);
        let inbox = if over { tables.runs.remove(&id) } else { tables.runs.get(&id).cloned() };
        let idle = over && tables.runs.is_empty();
        drop(tables);
        if let Some(inbox) = inbox {
            if !events.is_empty() {
                inbox.deliver(events);
            }
            match end {
                End::No => {}
                End::Well => inbox.finish(Ok(())),
                End::Failed(error) => inbox.finish(Err(error)),
            }
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// Python's thread has ended, or is given up: everything that waits for it fails. The first reason counts.
    pub(super) fn die(&self, reason: &Error) {
        let mut tables = lock(&self.tables);
        let reason = tables.dead.get_or_insert_with(|| reason.clone()).clone();
        let runs = std::mem::take(&mut tables.runs);
        let loads = std::mem::take(&mut tables.loads);
        drop(tables);
        for (_, inbox) in runs {
            inbox.finish(Err(reason.clone()));
        }
        for (_, answer) in loads {
            let _ = answer.send(Err(reason.clone()));
        }
        self.idle.notify_waiters();
        self.ended.notify_waiters();
    }
}

async fn wait(notify: &Notify, done: impl Fn() -> bool) {
    loop {
        let mut notified = std::pin::pin!(notify.notified());
        notified.as_mut().enable();
        if done() {
            return;
        }
        notified.await;
    }
}

impl Control for Shared {
    fn credit(&self, run: u64, n: usize) {
        self.send(&Command::Credit { id: run, n });
    }

    fn cancel(&self, run: u64) {
        self.send(&Command::Cancel { id: run });
    }
}

fn loaded(events: Vec<StreamEvent>, end: End) -> Result<Schema> {
    match (events.into_iter().next(), end) {
        (_, End::Failed(error)) => Err(error),
        (Some(StreamEvent::Unknown(loaded)), _) => {
            Schema::deserialize(loaded.data).map_err(|error| Error::value("a schema that can't be read", error))
        }
        (other, _) => Err(Error::Died(format!("a program was answered with {other:?}"))),
    }
}

enum End {
    No,
    Well,
    Failed(Error),
}

/// `null`, `true` or a failure.
impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = End;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("null, true or a failure")
            }

            fn visit_unit<E>(self) -> Result<End, E> {
                Ok(End::No)
            }

            fn visit_bool<E>(self, _: bool) -> Result<End, E> {
                Ok(End::Well)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<End, A::Error> {
                WireFailure::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(|failure| End::Failed(failure.into()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn many_commands_cost_one_wake_up() {
        let (shared, mut woken) = Shared::new(Arc::default()).unwrap();
        for id in 0..100 {
            shared.send(&Command::Cancel { id });
        }
        let mut bytes = [0; 64];
        assert_eq!(woken.read(&mut bytes).unwrap(), 1);
        let commands: Vec<Value> = serde_json::from_slice(&shared.take()).unwrap();
        assert_eq!((commands.len(), &commands[99]["id"]), (100, &Value::from(99)));
        assert_eq!(shared.take(), b"[]");
        shared.send(&Command::Unload { id: 1 });
        assert_eq!(woken.read(&mut bytes).unwrap(), 1);
    }

    #[test]
    fn whoever_waits_is_told_when_python_is_gone() {
        let (shared, _woken) = Shared::new(Arc::default()).unwrap();
        let mut answer = shared.expect_load(1).unwrap();
        shared.die(&Error::Died("why".into()));
        assert_eq!(answer.try_recv().unwrap(), Err(Error::Died("why".into())));
        assert!(shared.expect_load(2).is_err());
        shared.die(&Error::Shutdown);
        assert_eq!(shared.gone(), Error::Died("why".into()));
    }

    #[test]
    fn a_batch_that_is_none_is_an_error_and_no_panic() {
        let (shared, _woken) = Shared::new(Arc::default()).unwrap();
        assert!(shared.deliver(b"[[1,2]]").is_err());
        assert!(shared.deliver(b"[[1,[],null],[2,[],{\"code\":\"x\"}]]").is_ok());
    }
}
