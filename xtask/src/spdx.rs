//! Judging an SPDX licence expression against a list of accepted licences.

/// Whether the expression can be satisfied with accepted licences only. `Err` names what cannot be read.
pub(crate) fn satisfied(expression: &str, accepts: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    // Old crates write MIT/Apache-2.0 for "either".
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        accepts,
    };
    let value = parser.any()?;
    match parser.words.first() {
        None => Ok(value),
        Some(word) => Err(format!(
            "unexpected `{word}` in licence expression `{expression}`"
        )),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    accepts: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut value = self.all()?;
        while self.take("OR") {
            value |= self.all()?;
        }
        Ok(value)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut value = self.one()?;
        while self.take("AND") {
            value &= self.one()?;
        }
        Ok(value)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let value = self.any()?;
            return if self.take(")") {
                Ok(value)
            } else {
                Err("missing `)` in licence expression".to_owned())
            };
        }
        let name = self.next().ok_or("licence expression ends too early")?;
        if matches!(name, "AND" | "OR" | "WITH" | ")") {
            return Err(format!("unexpected `{name}` in licence expression"));
        }
        if self.take("WITH") {
            let exception = self
                .next()
                .ok_or("WITH without an exception in licence expression")?;
            return Ok((self.accepts)(&format!("{name} WITH {exception}")));
        }
        Ok((self.accepts)(name))
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self
            .words
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case(word));
        if found {
            self.words = self.words.get(1..).unwrap_or_default();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: Option<bool>) {
        let accepted = [
            "MIT",
            "Apache-2.0",
            "Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ];
        let result = satisfied(expression, &|name| accepted.contains(&name));
        assert_eq!(result.clone().ok(), expected, "{expression}: {result:?}");
    }

    #[test]
    fn expressions_mean_what_spdx_says() {
        check("MIT", Some(true));
        check("GPL-2.0-only", Some(false));
        check("GPL-2.0-only OR MIT", Some(true));
        check("GPL-2.0-only AND MIT", Some(false));
        check("(MIT OR Apache-2.0) AND Unicode-3.0", Some(true));
        check("MIT OR GPL-2.0-only AND GPL-3.0-only", Some(true));
        check("Apache-2.0 WITH LLVM-exception", Some(true));
        check("MIT WITH LLVM-exception", Some(false));
        check("Unlicense/MIT", Some(true));
    }

    #[test]
    fn nonsense_is_not_accepted() {
        for text in ["", "MIT OR", "(MIT", "MIT MIT", "OR MIT", "MIT WITH", ")"] {
            check(text, None);
        }
    }
}
