//! Long texts in parts that can be read side by side.

/// Shorter parts are not worth a thread.
const SHORTEST: usize = 1 << 20;

/// A run of whole documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Part<'t> {
    pub(in crate::model) text: &'t str,
    /// Where it begins, from the start of the whole text.
    pub(super) byte: usize,
    /// Lines before it.
    pub(super) lines: usize,
    /// Characters before it on its first line.
    pub(super) columns: usize,
}

impl<'t> Part<'t> {
    pub(in crate::model) fn whole(text: &'t str) -> Self {
        Self {
            text,
            byte: 0,
            lines: 0,
            columns: 0,
        }
    }

    /// What begins at this byte of the text.
    fn split_at(self, end: usize) -> Option<(Self, Self)> {
        let (first, second) = self.text.split_at_checked(end)?;
        let breaks = line_breaks(first);
        let last_line = first
            .rsplit(['\n', '\r'])
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        let rest = Self {
            text: second,
            byte: self.byte + end,
            lines: self.lines + breaks,
            columns: last_line + if breaks == 0 { self.columns } else { 0 },
        };
        Some((Self { text: first, ..self }, rest))
    }
}

/// Ends of lines, as YAML 1.2 (5.4) has them: a line feed, a carriage return, or both as one.
pub(in crate::model) fn line_breaks(text: &str) -> usize {
    let returns = text.matches('\r').count() - text.matches("\r\n").count();
    returns + text.matches('\n').count()
}

/// JSON values one after the other, a part each, and whatever follows them; what is no JSON is one part. (YAML takes
/// a single value of JSON for what it is, but no second one.)
pub(in crate::model) fn values(part: Part<'_>) -> Vec<Part<'_>> {
    if !part.text.trim_start().starts_with('{') {
        return vec![part];
    }
    let mut stream = serde_json::Deserializer::from_str(part.text).into_iter::<serde::de::IgnoredAny>();
    let mut ends = Vec::new();
    while let Some(Ok(_)) = stream.next() {
        ends.push(stream.byte_offset());
    }
    let (mut parts, mut rest) = (Vec::with_capacity(ends.len()), part);
    for end in ends {
        let Some((value, after)) = rest.split_at((part.byte + end).saturating_sub(rest.byte)) else {
            break;
        };
        parts.push(value);
        rest = after;
    }
    if parts.is_empty() || !rest.text.trim().is_empty() {
        parts.push(rest);
    }
    parts
}

/// At most `most` parts. A line that begins with `---` begins a document wherever it stands, so texts are cut there.
pub(in crate::model) fn parts(text: &str, most: usize) -> Vec<Part<'_>> {
    cut(text, (text.len() / most.max(1)).max(SHORTEST))
}

fn cut(text: &str, length: usize) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = Part::whole(text);
    // A directive (a line that begins with `%`) belongs to the document after the next `---`.
    while !text.contains("\n%") && rest.text.len() > length {
        let Some(end) = next_document(rest.text, length) else {
            break;
        };
        let Some((first, second)) = rest.split_at(end) else {
            break;
        };
        parts.push(first);
        rest = second;
    }
    parts.push(rest);
    parts
}

/// Where the first document after `from` begins.
fn next_document(text: &str, from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let at = from
            + text
                .as_bytes()
                .get(from..)?
                .windows(4)
                .position(|bytes| bytes == b"\n---")?;
        match text.as_bytes().get(at + 4) {
            Some(b' ' | b'\t' | b'\r' | b'\n') => return Some(at + 1),
            None => return None,
            Some(_) => from = at + 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_before_documents_only_and_counts_lines() {
        let text = "é: 1\n---\nb: |\n  ---\n---x: y\n--- # c\nd: 1\n---";
        for length in 0..text.len() + 5 {
            let parts = cut(text, length);
            assert_eq!(parts.iter().map(|part| part.text).collect::<String>(), text);
            for part in &parts {
                assert_eq!(text.get(part.byte..part.byte + part.text.len()), Some(part.text));
                assert_eq!(text[..part.byte].matches('\n').count(), part.lines);
            }
        }
        let starts: Vec<usize> = cut(text, 1).iter().map(|part| part.lines).collect();
        assert_eq!(starts, [0, 1, 5]);
        assert_eq!(cut("a: 1\n...\n%YAML 1.2\n---\nb: 1\n---\n", 1).len(), 1);
        assert_eq!(parts(text, 8), [Part::whole(text)]);
    }

    #[test]
    fn json_values_are_parts_wherever_they_are() {
        let places = |text| {
            values(Part::whole(text))
                .iter()
                .map(|part| (part.text, part.byte, part.lines, part.columns))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            places("{\"é\": 1}{}\n\n {\"b\": {}} \n"),
            [
                ("{\"é\": 1}", 0, 0, 0),
                ("{}", 9, 0, 8),
                ("\n\n {\"b\": {}}", 11, 0, 10)
            ]
        );
        assert_eq!(places("{}\n{a: b}"), [("{}", 0, 0, 0), ("\n{a: b}", 2, 0, 2)]);
        for whole in ["{a: b}\n", "a: {}\n", "", "{", "---\n{}"] {
            assert_eq!(places(whole), [(whole, 0, 0, 0)]);
        }
    }
}
