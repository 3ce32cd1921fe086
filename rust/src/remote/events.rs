//! Server-sent events to events of a run.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::Response;

use crate::error::{Error, Result};
use crate::event::StreamEvent;
use crate::remote::http::{broken, error_of};

/// The most that one event may be long; beyond it the other side is no dspy-live server.
const MOST: usize = 512 << 20;

/// Reads one reply.
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    pub(super) fn new(reply: Response<Incoming>) -> Self {
        Self { body: reply.into_body(), parser: Parser::default() }
    }

    /// The next event; `None` at the run's end.
    pub(super) async fn next(&mut self) -> Result<Option<StreamEvent>> {
        loop {
            if let Some((name, data)) = self.parser.next()? {
                match name.as_str() {
                    "done" => return Ok(None),
                    "error" => {
                        return Err(error_of(data.as_bytes())
                            .unwrap_or_else(|| Error::Connection(format!("an error that can't be read: {data}"))))
                    }
                    _ => return StreamEvent::from_json(&name, &data).map(Some),
                }
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

/// Bytes to (name, data): lines end in LF or CRLF, an empty line ends an event, a colon begins a comment.
struct Parser {
    most: usize,
    bytes: Vec<u8>,
    /// Where the unread part begins, and how far no line end was found.
    start: usize,
    searched: usize,
    name: String,
    data: String,
    any: bool,
}

impl Default for Parser {
    fn default() -> Self {
        let (name, data) = (String::new(), String::new());
        Self { most: MOST, bytes: Vec::new(), start: 0, searched: 0, name, data, any: false }
    }
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<(String, String)>> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + end;
            let line = self.bytes[self.start..end].strip_suffix(b"\r").unwrap_or(&self.bytes[self.start..end]);
            let line = String::from_utf8_lossy(line).into_owned();
            (self.start, self.searched) = (end + 1, end + 1);
            if line.is_empty() {
                if std::mem::take(&mut self.any) {
                    return Ok(Some((std::mem::take(&mut self.name), std::mem::take(&mut self.data))));
                }
                self.name.clear();
                continue;
            }
            self.line(&line);
        }
        self.searched = self.bytes.len();
        if self.bytes.len() - self.start + self.data.len() > self.most {
            return Err(Error::Connection(format!("an event of more than {} bytes", self.most)));
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.any, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        ": hi\n\nevent: token\nid: r:1\ndata: {\"text\":\"é\"}\n\nevent: two\r\ndata: a\r\ndata: b\r\n\r\nevent: none\n\ndata: x\n\n";

    fn all(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(String, String)> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(&piece);
            while let Some(event) = parser.next().unwrap() {
                found.push(event);
            }
        }
        found
    }

    #[test]
    fn whole_and_at_every_split_point() {
        let expected: Vec<(String, String)> =
            [("token", "{\"text\":\"é\"}"), ("two", "a\nb"), ("", "x")].map(|(n, d)| (n.into(), d.into())).into();
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
