//! One spliced stream as arithmetic: bytes of an LM's reply in, bytes of a client's reply out. No sockets here.

use crate::plain::{scan, Rules};
use std::io::Write;

/// Most bytes of an unfinished HTTP chunk that wait for its end; a longer one is left to Python.
pub const MOST_WAITING: usize = 64 << 10;

const MOST_SIZE_DIGITS: usize = 7;

/// What stays the same in all events of a stream.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// The LM's event up to its text, which stands between two quotes.
    pub prefix: Vec<u8>,
    /// The LM's event from the closing quote on, with the blank line.
    pub ending: Vec<u8>,
    /// The client's event up to its number.
    pub before: Vec<u8>,
    /// The client's event from its number to its text's opening quote.
    pub middle: Vec<u8>,
    /// The client's event after the text's closing quote.
    pub after: Vec<u8>,
    /// Which text may pass.
    pub rules: Rules,
}

/// A stream of events that differ in their texts alone, from the reply of an LM to that of a client.
///
/// Both are in HTTP/1.1's chunked coding (RFC 9112, 7.1). What is not of the pattern is not taken.
#[derive(Debug, Default)]
pub struct Stream {
    pattern: Pattern,
    /// The number of the client's last event, where events have numbers.
    seq: Option<u64>,
    line_start: bool,
    /// All text that has passed, as JSON has it between quotes.
    pub text: Vec<u8>,
    /// White space that comes before the next text, if more follows.
    pub held: Vec<u8>,
    /// The LM's events that were taken.
    pub events: u64,
    /// The client's events that were made.
    pub frames: u64,
    /// Bytes of these, without the chunked coding.
    pub size: u64,
}

/// What became of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many of them were taken: whole chunks.
    pub bytes: usize,
    /// False where what follows is not of the pattern; true where it is, or could become so with more bytes.
    pub fits: bool,
}

impl Stream {
    /// A stream whose client's last event had the number `seq`; without one, its events have none.
    pub fn new(pattern: Pattern, seq: Option<u64>) -> Self {
        Self {
            pattern,
            seq,
            ..Self::default()
        }
    }

    /// Take all chunks at the beginning of `data` that are of the pattern, and append one event for them to `out`.
    pub fn take(&mut self, data: &[u8], fresh: &mut Vec<u8>, out: &mut Vec<u8>) -> Taken {
        fresh.clear();
        fresh.extend_from_slice(&self.held);
        let mut solid = 0;
        let mut at = 0;
        let mut fits = true;
        while at < data.len() {
            match chunk(&data[at..]) {
                Chunk::Whole { from, to, end } => {
                    let before = fresh.len();
                    match self.take_events(&data[at + from..at + to], fresh) {
                        Some(Solid(Some(length))) => solid = length,
                        Some(Solid(None)) => {}
                        None => {
                            fresh.truncate(before);
                            fits = false;
                            break;
                        }
                    }
                    at += end;
                }
                Chunk::Partial => {
                    fits = data.len() - at <= MOST_WAITING;
                    break;
                }
                Chunk::Other => {
                    fits = false;
                    break;
                }
            }
        }
        self.held.clear();
        self.held.extend_from_slice(&fresh[solid..]);
        fresh.truncate(solid);
        if solid > 0 {
            self.frame(fresh, out);
        }
        Taken { bytes: at, fits }
    }

    /// Append the texts of the events in one chunk to `fresh`; nothing has changed where the result is `None`.
    fn take_events(&mut self, mut data: &[u8], fresh: &mut Vec<u8>) -> Option<Solid> {
        let mut line_start = self.line_start;
        let mut events = 0;
        let mut solid = None;
        while !data.is_empty() {
            let inside = data.strip_prefix(&self.pattern.prefix[..])?;
            let plain = scan(inside, &self.pattern.rules, line_start)?;
            data = inside[plain.end..].strip_prefix(&self.pattern.ending[..])?;
            if plain.solid > 0 {
                solid = Some(fresh.len() + plain.solid);
            }
            fresh.extend_from_slice(&inside[..plain.end]);
            line_start = plain.line_start;
            events += 1;
        }
        self.line_start = line_start;
        self.events += events;
        Some(Solid(solid))
    }

    fn frame(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.frames += 1;
        self.text.extend_from_slice(text);
        let Pattern {
            before,
            middle,
            after,
            ..
        } = &self.pattern;
        let mut digits = [0u8; 20];
        let mut rest = &mut digits[..];
        if let Some(seq) = &mut self.seq {
            *seq += 1;
            write!(rest, "{seq}").expect("a u64 has at most 20 digits");
        }
        let left = rest.len();
        let number = &digits[..20 - left];
        let size = before.len() + number.len() + middle.len() + text.len() + after.len() + 2;
        self.size += size as u64;
        write!(out, "{size:x}\r\n").expect("a vector takes all");
        for part in [before, number, middle, b"\"", text, b"\"", after, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// How long the fresh text is without its white space at the end, where any other came.
struct Solid(Option<usize>);

enum Chunk {
    /// The data is at `from..to`, the next chunk begins at `end`.
    Whole { from: usize, to: usize, end: usize },
    /// More bytes are needed.
    Partial,
    /// The last chunk, one with an extension, or no chunk at all.
    Other,
}

fn chunk(data: &[u8]) -> Chunk {
    let mut size = 0usize;
    let mut at = 0;
    loop {
        let Some(&byte) = data.get(at) else {
            return Chunk::Partial;
        };
        match (byte as char).to_digit(16) {
            Some(digit) if at < MOST_SIZE_DIGITS => size = size * 16 + digit as usize,
            None if byte == b'\r' && size > 0 => break,
            _ => return Chunk::Other,
        }
        at += 1;
    }
    let from = at + 2;
    let to = from + size;
    match (data.get(at + 1), data.get(to), data.get(to + 1)) {
        (Some(b'\n'), Some(b'\r'), Some(b'\n')) => Chunk::Whole {
            from,
            to,
            end: to + 2,
        },
        (None | Some(b'\n'), None | Some(b'\r'), None) => Chunk::Partial,
        _ => Chunk::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rules: Rules) -> Stream {
        let pattern = Pattern {
            prefix: b"data: {\"t\":\"".to_vec(),
            ending: b"\"}\n\n".to_vec(),
            before: b"id: r:".to_vec(),
            middle: b"\ndata: {\"text\":".to_vec(),
            after: b"}\n\n".to_vec(),
            rules,
        };
        Stream::new(pattern, Some(7))
    }

    fn event(text: &str) -> Vec<u8> {
        format!("data: {{\"t\":\"{text}\"}}\n\n").into_bytes()
    }

    fn chunked(data: &[u8]) -> Vec<u8> {
        [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
    }

    fn told(seq: u64, text: &str) -> Vec<u8> {
        chunked(format!("id: r:{seq}\ndata: {{\"text\":\"{text}\"}}\n\n").as_bytes())
    }

    fn take(stream: &mut Stream, data: &[u8]) -> (Taken, Vec<u8>) {
        let mut out = Vec::new();
        let taken = stream.take(data, &mut Vec::new(), &mut out);
        (taken, out)
    }

    fn prose() -> Stream {
        stream(Rules::new(b"", true, true))
    }

    #[test]
    fn an_event_becomes_the_clients_event_with_the_next_number() {
        let mut stream = prose();
        let data = chunked(&event(" Paris"));
        let (taken, out) = take(&mut stream, &data);
        assert_eq!(
            taken,
            Taken {
                bytes: data.len(),
                fits: true
            }
        );
        assert_eq!(out, told(8, " Paris"));
        assert_eq!((stream.events, stream.frames), (1, 1));
    }

    #[test]
    fn without_a_number_the_clients_event_has_none() {
        let pattern = Pattern {
            after: b"}\n\n".to_vec(),
            ..prose().pattern
        };
        let mut stream = Stream::new(pattern, None);
        let (_, out) = take(&mut stream, &chunked(&event("a")));
        assert_eq!(out, chunked(b"id: r:\ndata: {\"text\":\"a\"}\n\n"));
    }

    #[test]
    fn events_that_come_together_become_one_in_one_chunk_or_in_many() {
        let mut stream = prose();
        let one = chunked(&[event("a"), event(" b"), event("c")].concat());
        assert_eq!(take(&mut stream, &one).1, told(8, "a bc"));
        let three = [
            chunked(&event("d")),
            chunked(&event("e")),
            chunked(&event(" ")),
        ]
        .concat();
        assert_eq!(take(&mut stream, &three).1, told(9, "de"));
        assert_eq!(stream.held, b" ");
        assert_eq!(
            (stream.events, stream.frames, &stream.text[..]),
            (6, 2, &b"a bcde"[..])
        );
    }

    #[test]
    fn white_space_waits_for_the_text_after_it() {
        let mut stream = prose();
        assert_eq!(
            take(&mut stream, &chunked(&event("end.\\n"))).1,
            told(8, "end.")
        );
        assert_eq!(take(&mut stream, &chunked(&event("\\n "))).1, b"");
        assert_eq!(
            take(&mut stream, &chunked(&event("Next"))).1,
            told(9, "\\n\\n Next")
        );
        assert_eq!(stream.held, b"");
    }

    #[test]
    fn what_is_not_of_the_pattern_is_left_with_all_that_follows() {
        let others = [
            chunked(&event("\\n[[ ## completed")),
            chunked(b"data: [DONE]\n\n"),
            chunked(&[event("ok"), b": comment\n\n".to_vec()].concat()),
            chunked(&event("fine")[..5]),
            b"0\r\n\r\n".to_vec(),
            b"5;x=1\r\nhello\r\n".to_vec(),
            b"zz\r\n".to_vec(),
            b"\r\n".to_vec(),
            b"00000001\r\na\r\n".to_vec(),
            b"1\r\nabc".to_vec(),
        ];
        for other in others {
            let mut stream = prose();
            let first = chunked(&event("first"));
            let (taken, out) = take(&mut stream, &[&first[..], &other].concat());
            let shown = String::from_utf8_lossy(&other).into_owned();
            assert_eq!(
                taken,
                Taken {
                    bytes: first.len(),
                    fits: false
                },
                "{shown:?}"
            );
            assert_eq!(out, told(8, "first"), "{shown:?}");
            assert_eq!(
                (stream.events, &stream.text[..], &stream.held[..]),
                (1, &b"first"[..], &b""[..])
            );
        }
    }

    #[test]
    fn at_every_cut_the_text_is_the_same() {
        let data = [
            chunked(&event("one")),
            chunked(&event(" two\\n")),
            chunked(&event("three")),
        ]
        .concat();
        for cut in 0..data.len() {
            let mut stream = prose();
            let (first, _) = take(&mut stream, &data[..cut]);
            assert!(first.fits, "cut at {cut}");
            let (second, _) = take(&mut stream, &data[first.bytes..]);
            assert!(
                second.fits && first.bytes + second.bytes == data.len(),
                "cut at {cut}"
            );
            assert_eq!(stream.text, b"one two\\nthree", "cut at {cut}");
        }
    }

    #[test]
    fn a_chunk_that_does_not_end_is_left_when_it_is_too_long() {
        let mut stream = prose();
        let mut data = b"fffff\r\n".to_vec();
        data.resize(MOST_WAITING, b'a');
        assert!(take(&mut stream, &data).0.fits);
        data.push(b'a');
        assert_eq!(
            take(&mut stream, &data).0,
            Taken {
                bytes: 0,
                fits: false
            }
        );
    }

    #[test]
    fn a_line_end_in_one_event_makes_a_bracket_in_the_next_one_stop() {
        let mut stream = prose();
        assert!(take(&mut stream, &chunked(&event("end\\n"))).0.fits);
        assert!(!take(&mut stream, &chunked(&event("[[ ## "))).0.fits);
        let mut stream = prose();
        assert!(take(&mut stream, &chunked(&event("see"))).0.fits);
        assert!(take(&mut stream, &chunked(&event("[1]"))).0.fits);
    }
}
