//! Which text may pass unread, by looking at the inside of a JSON string.

/// What a reply's format wants to see of a field's text; all other text is the field's as it stands.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// ASCII characters that must not pass, a bit each.
    stop: u128,
    /// A bracket that begins a line must not pass.
    pub lines: bool,
    /// Line ends, tabs, quotes and backslashes may pass, which JSON writes as escapes.
    pub escapes: bool,
}

impl Rules {
    /// Rules that stop at each of the ASCII characters in `stop`.
    pub fn new(stop: &[u8], lines: bool, escapes: bool) -> Self {
        let stop = stop
            .iter()
            .filter(|byte| byte.is_ascii())
            .fold(0, |bits, byte| bits | 1 << byte);
        Self {
            stop,
            lines,
            escapes,
        }
    }

    fn stops_at(&self, byte: u8) -> bool {
        byte.is_ascii() && self.stop >> byte & 1 == 1
    }
}

/// Text that may pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    /// Where the string's closing quote is.
    pub end: usize,
    /// Where the text ends without its white space at the end.
    pub solid: usize,
    /// Nothing but white space has come since the last line end.
    pub line_start: bool,
}

/// Read the inside of a JSON string from the beginning of `data`, up to its closing quote.
///
/// `line_start` says that the text before ended with a line end and white space. `None` where the text must not pass,
/// or has no end in `data`.
pub fn scan(data: &[u8], rules: &Rules, mut line_start: bool) -> Option<Plain> {
    let mut at = 0;
    let mut solid = 0;
    let mut ascii = true;
    loop {
        let byte = *data.get(at)?;
        let (length, white) = match byte {
            b'"' => break,
            b'\\' => match data.get(at + 1)? {
                b'n' if rules.escapes => {
                    line_start = true;
                    (2, true)
                }
                b't' if rules.escapes => (2, true),
                b'"' | b'\\' if rules.escapes && !rules.stops_at(data[at + 1]) => (2, false),
                _ => return None,
            },
            b' ' => (1, true),
            0..0x20 => return None,
            b'[' if rules.lines && line_start => return None,
            0x80.. => {
                ascii = false;
                (1, false)
            }
            _ if rules.stops_at(byte) => return None,
            _ => (1, false),
        };
        at += length;
        if !white {
            solid = at;
        }
        line_start &= white;
    }
    if !ascii && !fit(&data[..at]) {
        return None;
    }
    Some(Plain {
        end: at,
        solid,
        line_start,
    })
}

/// True for UTF-8 without any white space or line end beyond ASCII's, and without what XML can't have.
fn fit(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| {
        !text.chars().any(|c| {
            !c.is_ascii()
                && (c.is_whitespace() || c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(data: &str, line_start: bool) -> Option<(usize, usize, bool)> {
        let rules = Rules::new(b"", true, true);
        scan(data.as_bytes(), &rules, line_start).map(|p| (p.end, p.solid, p.line_start))
    }

    #[test]
    fn words_pass_and_their_trailing_white_space_is_marked() {
        assert_eq!(prose("Paris\"", false), Some((5, 5, false)));
        assert_eq!(prose(" is it. \"", false), Some((8, 7, false)));
        assert_eq!(prose("   \"", false), Some((3, 0, false)));
        assert_eq!(prose("\"", true), Some((0, 0, true)));
    }

    #[test]
    fn line_ends_pass_and_a_bracket_after_one_does_not() {
        assert_eq!(prose(r#"one\n two""#, false), Some((9, 9, false)));
        assert_eq!(prose(r#"one\n\t ""#, false), Some((8, 3, true)));
        assert_eq!(prose(r#"one\n[[ ""#, false), None);
        assert_eq!(prose(r#"a [1]""#, false), Some((5, 5, false)));
        assert_eq!(prose(r#" [""#, true), None);
    }

    #[test]
    fn escapes_that_json_writes_in_another_way_do_not_pass() {
        assert_eq!(prose(r#"say \"no\" \\""#, false), Some((13, 13, false)));
        for text in [r"a\/b", r"\u00e9", r"\r", r"\b", "a\nb", "a\u{1}"] {
            assert_eq!(prose(&format!("{text}\""), false), None, "{text:?}");
        }
    }

    #[test]
    fn beyond_ascii_only_white_space_and_what_is_no_utf8_stop() {
        assert_eq!(
            prose("“née” — 日本\"", false).map(|p| p.1),
            Some("“née” — 日本".len())
        );
        for text in [
            "a\u{a0}",
            "\u{2028}b",
            "\u{3000}",
            "\u{85}",
            "\u{200a}",
            "\u{fffe}",
            "\u{ffff}",
        ] {
            assert_eq!(prose(&format!("{text}\""), false), None, "{text:?}");
        }
        assert_eq!(scan(b"\xff\"", &Rules::default(), false), None);
    }

    #[test]
    fn text_without_an_end_does_not_pass() {
        assert_eq!(prose("Paris", false), None);
        assert_eq!(prose("Paris\\", false), None);
        assert_eq!(prose("Paris\\\"", false), None);
    }

    #[test]
    fn a_format_names_the_characters_that_it_reads() {
        let xml = Rules::new(b"<&]", false, true);
        assert!(scan(b"a < b\"", &xml, false).is_none());
        assert!(scan(b"[a > b\"", &xml, true).is_some());
        let json = Rules::new(b"", false, false);
        assert_eq!(scan(b"blank \"", &json, false).map(|p| p.solid), Some(5));
        for text in [r#"\n""#, r#"\"""#, r#"\\""#] {
            assert!(scan(text.as_bytes(), &json, false).is_none(), "{text}");
        }
    }
}
