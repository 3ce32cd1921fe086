//! Cutting the texts out of a burst of events that differ in them alone.

/// What was cut out of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Where the first event begins that is not of the pattern, or not whole.
    pub end: usize,
    /// How many events there were before it.
    pub events: usize,
    /// Their texts, joined.
    pub text: String,
}

/// Take all events at the beginning of `data` that are `prefix`, the inside of a JSON string, and `ending`.
///
/// `ending` begins with the closing quote. A text with an escape by code point, or that is not UTF-8, ends the run.
pub fn cut(data: &[u8], prefix: &[u8], ending: &[u8]) -> Cut {
    let mut cut = Cut::default();
    let mut text = Vec::new();
    while let Some(inside) = data[cut.end..].strip_prefix(prefix) {
        let before = text.len();
        let Some(length) = inside_of(inside, &mut text) else {
            text.truncate(before);
            break;
        };
        let whole =
            inside[length..].starts_with(ending) && std::str::from_utf8(&text[before..]).is_ok();
        if !whole {
            text.truncate(before);
            break;
        }
        cut.end += prefix.len() + length + ending.len();
        cut.events += 1;
    }
    cut.text = String::from_utf8(text).expect("each text was looked at");
    cut
}

/// Append the text up to the closing quote; return where that is.
fn inside_of(data: &[u8], text: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let plain = data[at..]
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        text.extend_from_slice(&data[at..at + plain]);
        at += plain;
        if data[at] == b'"' {
            return Some(at);
        }
        if data[at] != b'\\' {
            return None;
        }
        text.push(match data.get(at + 1)? {
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            _ => return None,
        });
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_events(data: &str) -> (usize, usize, String) {
        let found = cut(data.as_bytes(), b"data: {\"t\":\"", b"\"}\n\n");
        (found.end, found.events, found.text)
    }

    #[test]
    fn texts_of_the_events_are_joined_and_unescaped() {
        let data =
            "data: {\"t\":\"a \\\"b\\\"\\n\"}\n\ndata: {\"t\":\"\"}\n\ndata: {\"t\":\"é\"}\n\n";
        assert_eq!(cut_events(data), (data.len(), 3, "a \"b\"\né".into()));
    }

    #[test]
    fn the_first_event_that_is_another_ends_the_run() {
        let good = "data: {\"t\":\"good\"}\n\n";
        for other in [
            "data: {\"t\":\"\\u00e9\"}\n\n",
            "data: {\"t\":\"cut",
            "data: [DONE]\n\n",
            "data: {\"t\":\"a\nb\"}\n\n",
        ] {
            let data = format!("{good}{other}{good}");
            assert_eq!(
                cut_events(&data),
                (good.len(), 1, "good".into()),
                "{other:?}"
            );
        }
        assert_eq!(
            cut(
                b"data: {\"t\":\"\xff\"}\n\n",
                b"data: {\"t\":\"",
                b"\"}\n\n"
            ),
            Cut::default()
        );
    }

    #[test]
    fn nothing_is_cut_out_of_nothing() {
        assert_eq!(cut_events(""), (0, 0, String::new()));
        assert_eq!(cut_events("data: {\"t\":\"a\\"), (0, 0, String::new()));
    }
}
