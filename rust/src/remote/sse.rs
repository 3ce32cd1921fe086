//! The text of server-sent events, in whatever pieces it comes.

use crate::error::{Error, Result};

/// The most that one event may be long; beyond it the other side is no dspy-live server.
const MOST: usize = 512 << 20;

/// One event as it stands on the wire.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub name: String,
    pub data: String,
    id: String,
}

impl Found {
    /// The number in an id `RUN:NUMBER`.
    pub(super) fn number(&self) -> Option<u64> {
        self.id.rsplit(':').next().and_then(|number| number.parse().ok())
    }
}

/// Bytes to events: lines end in LF or CRLF, an empty line ends an event, a colon begins a comment.
pub(super) struct Parser {
    most: usize,
    bytes: Vec<u8>,
    /// Where the unread part begins, and how far no line end was found.
    start: usize,
    searched: usize,
    event: Found,
    any: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self { most: MOST, bytes: Vec::new(), start: 0, searched: 0, event: Found::default(), any: false }
    }
}

impl Parser {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event; `None` where more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + end;
            let line = self.bytes[self.start..end].strip_suffix(b"\r").unwrap_or(&self.bytes[self.start..end]);
            let line = String::from_utf8_lossy(line).into_owned();
            (self.start, self.searched) = (end + 1, end + 1);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.any) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.line(&line);
        }
        self.searched = self.bytes.len();
        if self.bytes.len() - self.start + self.event.data.len() > self.most {
            return Err(Error::Connection(format!("an event of more than {} bytes", self.most)));
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.any, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" => value.clone_into(&mut self.event.id),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        ": hi\n\nevent: token\nid: r:1\ndata: {\"text\":\"é\"}\n\nevent: two\r\ndata: a\r\ndata: b\r\n\r\nevent: none\n\ndata: x\n\n";

    fn all(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(String, String, Option<u64>)> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(&piece);
            while let Some(event) = parser.next().unwrap() {
                let number = event.number();
                found.push((event.name, event.data, number));
            }
        }
        found
    }

    #[test]
    fn whole_and_at_every_split_point() {
        let expected: Vec<(String, String, Option<u64>)> =
            [("token", "{\"text\":\"é\"}", Some(1)), ("two", "a\nb", None), ("", "x", None)]
                .map(|(name, data, number)| (name.into(), data.into(), number))
                .into();
        let bytes = TEXT.as_bytes();
        assert_eq!(all([bytes.to_vec()].into_iter()), expected);
        assert_eq!(all(bytes.iter().map(|byte| vec![*byte])), expected);
        for at in 0..bytes.len() {
            assert_eq!(all([bytes[..at].to_vec(), bytes[at..].to_vec()].into_iter()), expected, "{at}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser { most: 1000, ..Parser::default() };
        parser.feed(&[b'x'; 1000]);
        assert!(parser.next().unwrap().is_none());
        parser.feed(b"x");
        assert!(parser.next().is_err());
    }
}
