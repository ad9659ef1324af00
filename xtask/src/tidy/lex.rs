//! Just enough of Rust's lexical structure to tell code from comments and strings.

/// The text with comments and the contents of strings blanked; lines and columns stay where they were.
pub(super) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let inside_word = previous.is_alphanumeric() || previous == '_';
        let len = comment(rest).or_else(|| {
            if inside_word {
                plain_string(rest)
            } else {
                literal(rest)
            }
        });
        let (taken, code) = match len {
            Some(len) => (len, false),
            None => (first.len_utf8(), true),
        };
        let (piece, tail) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        if code {
            out.push_str(piece);
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        previous = if code { first } else { ' ' };
        rest = tail;
    }
    out
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0usize, 0usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(text.len())
}

fn literal(text: &str) -> Option<usize> {
    let after_prefix = ["br", "cr", "r"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    if let Some(raw) = after_prefix {
        let hashes = raw.bytes().take_while(|&byte| byte == b'#').count();
        if raw.get(hashes..).is_some_and(|rest| rest.starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            let length = text.get(start..).and_then(|body| body.find(&end));
            return Some(length.map_or(text.len(), |length| start + length + end.len()));
        }
    }
    plain_string(text).or_else(|| character(text))
}

fn plain_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// A character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut chars = body.chars();
    match chars.next()? {
        '\\' => {
            let skipped = 1 + chars.next()?.len_utf8();
            Some(1 + skipped + body.get(skipped..)?.find('\'')? + 1)
        }
        c => (chars.next()? == '\'').then(|| 1 + c.len_utf8() + 1),
    }
}

/// Identifiers with the line they are on.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(at, line)| {
        let words = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty());
        words.map(move |word| (at + 1, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(code_only(text), expected, "for {text:?}");
    }

    #[test]
    fn comments_and_strings_are_blanked_in_place() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("f(\"x // y\") // z", "f(        )     ");
        check("f(\"\\\"q\") g", "f(     ) g");
        check("r#\"a\"b\"# c", "         c");
        check("br\"a\" c", "      c");
        check("'\"' x '\\'' y '\\u{1f}' z", "    x      y          z");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("for\"x\"", "for   ");
        check("\"open", "     ");
        check("é // ü\n", "é     \n".trim_end_matches(' '));
    }

    #[test]
    fn words_know_their_line() {
        assert_eq!(
            words("use a_b::c;\n\nd").collect::<Vec<_>>(),
            [(1, "use"), (1, "a_b"), (1, "c"), (3, "d")]
        );
    }
}
