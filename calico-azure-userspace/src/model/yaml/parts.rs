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
}

impl<'t> Part<'t> {
    pub(in crate::model) fn whole(text: &'t str) -> Self {
        Self {
            text,
            byte: 0,
            lines: 0,
        }
    }
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
        let (first, second) = rest.text.split_at(end);
        parts.push(Part { text: first, ..rest });
        let lines = rest.lines + first.bytes().filter(|byte| *byte == b'\n').count();
        rest = Part {
            text: second,
            byte: rest.byte + end,
            lines,
        };
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
}
