//! The sockets of all spliced streams, behind one descriptor that an event loop watches.

use crate::stream::{Pattern, Stream};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{fcntl_dupfd_cloexec, Errno};
use rustix::net::{recv, send, RecvFlags, SendFlags};
use rustix::time::{clock_gettime, ClockId, Timespec};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const AT_ONCE: usize = 128 << 10;
const MOST_EVENTS: usize = 256;

/// What was done for a stream until it was released.
#[derive(Debug)]
pub struct Released<Owner> {
    /// Who added it.
    pub owner: Owner,
    /// Its texts and counts.
    pub stream: Stream,
    /// Bytes of the LM's reply that were read and not taken.
    pub unread: Vec<u8>,
    /// Bytes for the client that its socket did not take.
    pub unsent: Vec<u8>,
    /// When the last bytes came, in seconds of the monotonic clock.
    pub heard: f64,
}

struct Spliced<Owner> {
    owner: Owner,
    stream: Stream,
    lm: OwnedFd,
    client: OwnedFd,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    heard: f64,
    over: bool,
}

/// Moves plain text of any number of streams from the sockets of LMs to those of clients.
pub struct Splicer<Owner> {
    poll: OwnedFd,
    streams: Slab<Spliced<Owner>>,
    read: Vec<u8>,
    fresh: Vec<u8>,
    out: Vec<u8>,
}

impl<Owner> Splicer<Owner> {
    /// A splicer without streams.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            streams: Slab::new(),
            read: Vec::new(),
            fresh: Vec::new(),
            out: Vec::new(),
        })
    }

    /// The descriptor that is readable while [`Self::run`] has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// True without any stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Take over the reading of `lm` and the writing to `client`, which both must be non-blocking, until released.
    ///
    /// The sockets are duplicated: whoever closes theirs meanwhile must release the stream, too.
    pub fn add(
        &mut self,
        lm: BorrowedFd<'_>,
        client: BorrowedFd<'_>,
        pattern: Pattern,
        seq: Option<u64>,
        owner: Owner,
    ) -> io::Result<usize> {
        let lm = fcntl_dupfd_cloexec(lm, 3)?;
        let client = fcntl_dupfd_cloexec(client, 3)?;
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        let data = (key as u64) << 1;
        epoll::add(&self.poll, &lm, EventData::new_u64(data), once())?;
        // Of the client nothing is expected: whatever it does is for the event loop to see.
        if let Err(error) = epoll::add(&self.poll, &client, EventData::new_u64(data | 1), once()) {
            epoll::delete(&self.poll, &lm).ok();
            return Err(error.into());
        }
        entry.insert(Spliced {
            owner,
            stream: Stream::new(pattern, seq),
            lm,
            client,
            unread: Vec::new(),
            unsent: Vec::new(),
            heard: 0.0,
            over: false,
        });
        Ok(key)
    }

    /// Move what has come, once for each socket; `over` is called for each stream that is to be released.
    pub fn run(&mut self, mut over: impl FnMut(&Owner)) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(MOST_EVENTS);
        match epoll::wait(
            &self.poll,
            spare_capacity(&mut events),
            Some(&Timespec::default()),
        ) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let now = seconds(clock_gettime(ClockId::Monotonic));
        for event in &events {
            let (data, flags) = ({ event.data }.u64(), { event.flags });
            let Some(spliced) = self.streams.get_mut((data >> 1) as usize) else {
                continue;
            };
            if spliced.over {
                continue;
            }
            let next = if data & 1 == 1 {
                Next::Over
            } else {
                spliced.forward(&mut self.read, &mut self.fresh, &mut self.out, now)
            };
            // The end of an LM's reply, which may have come with its last words, is told this once.
            let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            let goes_on = match next {
                Next::Over => false,
                _ if ends => false,
                Next::Wait => true,
                // It is told again, after the turn of the others.
                Next::Again => {
                    epoll::modify(&self.poll, &spliced.lm, EventData::new_u64(data), once()).is_ok()
                }
            };
            if !goes_on {
                spliced.over = true;
                epoll::delete(&self.poll, &spliced.lm).ok();
                epoll::delete(&self.poll, &spliced.client).ok();
                over(&spliced.owner);
            }
        }
        Ok(())
    }

    /// When the last bytes of a stream came, in seconds of the monotonic clock, and how many bytes its client got.
    pub fn state(&self, key: usize) -> Option<(f64, u64)> {
        self.streams
            .get(key)
            .map(|spliced| (spliced.heard, spliced.stream.size))
    }

    /// Give a stream's sockets back; `None` where it has been released already.
    pub fn release(&mut self, key: usize) -> Option<Released<Owner>> {
        let spliced = self.streams.try_remove(key)?;
        if !spliced.over {
            epoll::delete(&self.poll, &spliced.lm).ok();
            epoll::delete(&self.poll, &spliced.client).ok();
        }
        Some(Released {
            owner: spliced.owner,
            stream: spliced.stream,
            unread: spliced.unread,
            unsent: spliced.unsent,
            heard: spliced.heard,
        })
    }
}

/// Told once for what has come, so that a socket that was read is not looked at again.
fn once() -> EventFlags {
    EventFlags::IN | EventFlags::RDHUP | EventFlags::ET
}

/// What is to be done after a stream was read.
enum Next {
    /// Wait until more comes.
    Wait,
    /// Read on: there may be more already.
    Again,
    /// Release it.
    Over,
}

impl<Owner> Spliced<Owner> {
    /// Read once and write what follows from it.
    fn forward(
        &mut self,
        read: &mut Vec<u8>,
        fresh: &mut Vec<u8>,
        out: &mut Vec<u8>,
        now: f64,
    ) -> Next {
        read.clear();
        read.extend_from_slice(&self.unread);
        read.reserve(AT_ONCE);
        let room = read.capacity() - read.len();
        let full = match recv(&self.lm, spare_capacity(read), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Next::Over,
            Ok((_, size)) => size == room,
            Err(Errno::INTR) => return Next::Again,
            Err(Errno::AGAIN) => return Next::Wait,
            Err(_) => return Next::Over,
        };
        self.heard = now;
        out.clear();
        let taken = self.stream.take(read, fresh, out);
        self.unread.clear();
        self.unread.extend_from_slice(&read[taken.bytes..]);
        match self.write(out) && taken.fits {
            false => Next::Over,
            true if full => Next::Again,
            true => Next::Wait,
        }
    }

    fn write(&mut self, out: &[u8]) -> bool {
        if out.is_empty() {
            return true;
        }
        let sent = send(&self.client, out, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0);
        self.unsent.extend_from_slice(&out[sent..]);
        sent == out.len()
    }
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
#[path = "splicer_tests.rs"]
mod tests;
