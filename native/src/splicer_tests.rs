//! The splicer on pairs of sockets.

use super::*;
use crate::plain::Rules;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Both ends of an LM's socket and of a client's, spliced by the owner "one".
struct Pair {
    splicer: Splicer<&'static str>,
    lm: UnixStream,
    client: UnixStream,
    key: usize,
}

fn pair() -> Pair {
    let (lm, ours) = UnixStream::pair().unwrap();
    let (client, theirs) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut splicer = Splicer::new().unwrap();
    let pattern = Pattern {
        prefix: b"<".to_vec(),
        ending: b"\">".to_vec(),
        rules: Rules::new(b"", true, true),
        ..Pattern::default()
    };
    let key = splicer
        .add(ours.as_fd(), theirs.as_fd(), pattern, Some(0), "one")
        .unwrap();
    Pair {
        splicer,
        lm,
        client,
        key,
    }
}

fn events(count: usize, text: &str) -> Vec<u8> {
    let event = format!("<{text}\">");
    format!("{:x}\r\n{event}\r\n", event.len())
        .repeat(count)
        .into_bytes()
}

impl Pair {
    /// Run once; return who is to be released.
    fn run(&mut self) -> Vec<&'static str> {
        let mut over = Vec::new();
        self.splicer.run(|owner| over.push(*owner)).unwrap();
        over
    }

    fn ready(&self) -> bool {
        let mut looked = [rustix::event::PollFd::new(
            &self.splicer.poll,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut looked, Some(&Timespec::default())).unwrap() == 1
    }

    fn client_reads(&mut self) -> usize {
        let mut got = [0u8; 1 << 20];
        self.client.read(&mut got).unwrap_or(0)
    }
}

#[test]
fn more_than_is_read_at_once_is_read_in_the_next_turns() {
    let mut pair = pair();
    let data = events(6_000, "many words of one burst");
    assert!(data.len() > AT_ONCE + 10_000);
    pair.lm.write_all(&data).unwrap();
    let mut turns = 0;
    while pair.ready() {
        assert!(pair.run().is_empty());
        assert!(pair.client_reads() > 0);
        turns += 1;
    }
    assert!(turns > 1);
    let released = pair.splicer.release(pair.key).unwrap();
    assert_eq!((released.stream.events, released.unread.len()), (6_000, 0));
}

#[test]
fn an_lm_that_closes_right_after_its_words_is_given_back() {
    let mut pair = pair();
    pair.lm.write_all(&events(1, "word")).unwrap();
    drop(std::mem::replace(
        &mut pair.lm,
        UnixStream::pair().unwrap().0,
    ));
    assert_eq!(pair.run(), ["one"]);
    assert_eq!(pair.splicer.release(pair.key).unwrap().stream.events, 1);
}

#[test]
fn a_client_that_says_something_or_leaves_ends_the_splice() {
    let mut pair_ = pair();
    pair_.client.write_all(b"GET").unwrap();
    assert_eq!(pair_.run(), ["one"]);
    let mut pair_ = pair();
    drop(std::mem::replace(
        &mut pair_.client,
        UnixStream::pair().unwrap().0,
    ));
    assert_eq!(pair_.run(), ["one"]);
    assert!(pair_.run().is_empty(), "it is named once");
    assert!(pair_.splicer.release(pair_.key).is_some());
    assert!(pair_.splicer.release(pair_.key).is_none());
    assert!(pair_.splicer.is_empty());
}

#[test]
fn what_a_full_client_did_not_take_is_given_back_with_all_that_is_unread() {
    let mut pair = pair();
    pair.lm.set_nonblocking(true).unwrap();
    let one = events(1, &"w".repeat(5_000));
    let (mut written, mut over) = (0, Vec::new());
    while over.is_empty() {
        match pair.lm.write(&one) {
            Ok(size) => written += size,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        over = pair.run();
    }
    let released = pair.splicer.release(pair.key).unwrap();
    assert!(!released.unsent.is_empty());
    let taken = released.stream.events as usize * one.len() + released.unread.len();
    assert!(taken <= written);
    let mut got = Vec::new();
    let mut part = [0u8; 4096];
    while let Ok(size @ 1..) = pair.client.read(&mut part) {
        got.extend_from_slice(&part[..size]);
    }
    got.extend_from_slice(&released.unsent);
    let sent: usize = got.iter().filter(|&&byte| byte == b'w').count();
    assert_eq!(sent, released.stream.events as usize * 5_000);
}
