//! Text into tokens with their places. Blanks and tabs separate; a newline is an error, as it is for Calico.

use super::{MAX_LABEL, ParseError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A label key or one of the contextual words.
    Word(String),
    /// A quoted string.
    Text(String),
    Eq,
    Ne,
    Not,
    And,
    Or,
    Open,
    Close,
    OpenSet,
    CloseSet,
    Comma,
    End,
}

impl Token {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("'{word}'"),
            Self::Text(text) => format!("string \"{text}\""),
            Self::Eq => "'=='".into(),
            Self::Ne => "'!='".into(),
            Self::Not => "'!'".into(),
            Self::And => "'&&'".into(),
            Self::Or => "'||'".into(),
            Self::Open => "'('".into(),
            Self::Close => "')'".into(),
            Self::OpenSet => "'{'".into(),
            Self::CloseSet => "'}'".into(),
            Self::Comma => "','".into(),
            Self::End => "the end".into(),
        }
    }
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

fn error<T>(offset: usize, message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError {
        message: message.into(),
        offset,
    })
}

/// Every token and where it begins, [`Token::End`] last.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ParseError> {
    let mut tokens = Vec::new();
    let mut offset = 0;
    while let Some(c) = text.get(offset..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(offset..).unwrap_or_default();
        let (token, length) = match c {
            ' ' | '\t' => {
                offset += 1;
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '{' => (Token::OpenSet, 1),
            '}' => (Token::CloseSet, 1),
            ',' => (Token::Comma, 1),
            '!' if rest.starts_with("!=") => (Token::Ne, 2),
            '!' => (Token::Not, 1),
            '=' if rest.starts_with("==") => (Token::Eq, 2),
            '=' => return error(offset, "expected '==', found a single '='"),
            '&' if rest.starts_with("&&") => (Token::And, 2),
            '&' => return error(offset, "expected '&&', found a single '&'"),
            '|' if rest.starts_with("||") => (Token::Or, 2),
            '|' => return error(offset, "expected '||', found a single '|'"),
            '"' | '\'' => {
                let Some(length) = rest.get(1..).and_then(|rest| rest.find(c)) else {
                    return error(offset, format!("this string has no closing {c}"));
                };
                (
                    Token::Text(rest.get(1..=length).unwrap_or_default().to_owned()),
                    length + 2,
                )
            }
            c if is_label(c) => {
                let length = rest.find(|c| !is_label(c)).unwrap_or(rest.len());
                if length > MAX_LABEL {
                    return error(
                        offset,
                        format!("a label has at most {MAX_LABEL} characters, this one has {length}"),
                    );
                }
                (
                    Token::Word(rest.get(..length).unwrap_or_default().to_owned()),
                    length,
                )
            }
            '\n' | '\r' => {
                return error(
                    offset,
                    "a selector is one line: in YAML, use '>-' to fold lines into one",
                );
            }
            c => return error(offset, format!("unexpected character {c:?}")),
        };
        tokens.push((token, offset));
        offset += length;
    }
    tokens.push((Token::End, text.len()));
    Ok(tokens)
}
