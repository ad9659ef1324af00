//! Recursive descent: `||` binds loosest, then `&&`, then `!`, which takes a whole comparison or group.

use std::collections::BTreeSet;

use super::ast::{Node, Op};
use super::lexer::{Token, tokens};
use super::{MAX_DEPTH, ParseError};

pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        tokens: &tokens,
        next: 0,
        depth: 0,
    };
    if parser.peek() == &Token::End {
        return Ok(Node::All);
    }
    let node = parser.or()?;
    match parser.peek() {
        Token::End => Ok(node),
        _ => parser.unexpected("'&&', '||' or the end"),
    }
}

struct Parser<'a> {
    tokens: &'a [(Token, usize)],
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens
            .get(self.next + ahead)
            .map_or(&Token::End, |(token, _)| token)
    }

    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn offset(&self) -> usize {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(0, |(_, offset)| *offset)
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, ParseError> {
        let message = format!("expected {expected}, found {}", self.peek().describe());
        Err(ParseError {
            message,
            offset: self.offset(),
        })
    }

    fn take(&mut self, token: &Token) -> bool {
        let taken = self.peek() == token;
        self.next += usize::from(taken);
        taken
    }

    fn expect(&mut self, token: &Token, expected: &str) -> Result<(), ParseError> {
        if self.take(token) {
            Ok(())
        } else {
            self.unexpected(expected)
        }
    }

    fn or(&mut self) -> Result<Node, ParseError> {
        let mut nodes = vec![self.and()?];
        while self.take(&Token::Or) {
            nodes.push(self.and()?);
        }
        Ok(Node::Or(nodes))
    }

    fn and(&mut self) -> Result<Node, ParseError> {
        let mut nodes = vec![self.unary()?];
        while self.take(&Token::And) {
            nodes.push(self.unary()?);
        }
        Ok(Node::And(nodes))
    }

    fn unary(&mut self) -> Result<Node, ParseError> {
        if self.depth >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep: simplify the selector");
            return Err(ParseError {
                message,
                offset: self.offset(),
            });
        }
        self.depth += 1;
        let node = if self.take(&Token::Not) {
            self.unary().map(|node| Node::Not(Box::new(node)))
        } else {
            self.primary()
        };
        self.depth -= 1;
        node
    }

    fn primary(&mut self) -> Result<Node, ParseError> {
        if self.take(&Token::Open) {
            let node = self.or()?;
            self.expect(&Token::Close, "')'")?;
            return Ok(node);
        }
        let Token::Word(word) = self.peek().clone() else {
            return self.unexpected("a label, '!', '(', has(…), all() or global()");
        };
        // These are functions only when called: labels may have their names.
        if self.peek_at(1) == &Token::Open {
            return self.call(&word);
        }
        self.next += 1;
        self.comparison(word)
    }

    fn call(&mut self, name: &str) -> Result<Node, ParseError> {
        let node = match name {
            "all" => Node::All,
            "global" => Node::Global,
            "has" => Node::Has(String::new()),
            _ => {
                let message = format!("there is no function {name}(): expected has(), all() or global()");
                return Err(ParseError {
                    message,
                    offset: self.offset(),
                });
            }
        };
        self.next += 2;
        let node = match (node, self.peek().clone()) {
            (Node::Has(_), Token::Word(key)) => {
                self.next += 1;
                Node::Has(key)
            }
            (Node::Has(_), _) => return self.unexpected("a label"),
            (node, _) => node,
        };
        self.expect(&Token::Close, "')'")?;
        Ok(node)
    }

    fn comparison(&mut self, key: String) -> Result<Node, ParseError> {
        let expected = "'==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with' after a label";
        let word = |token: &Token, text: &str| matches!(token, Token::Word(word) if word == text);
        let (first, second) = (self.peek().clone(), self.peek_at(1).clone());
        let two = |parser: &mut Self, op| {
            parser.next += 2;
            parser.compare(key.clone(), op)
        };
        let one = |parser: &mut Self, op| {
            parser.next += 1;
            parser.compare(key.clone(), op)
        };
        match &first {
            Token::Eq => one(self, Op::Eq),
            Token::Ne => one(self, Op::Ne),
            t if word(t, "contains") => one(self, Op::Contains),
            t if word(t, "startswith") => one(self, Op::StartsWith),
            t if word(t, "endswith") => one(self, Op::EndsWith),
            t if word(t, "starts") && word(&second, "with") => two(self, Op::StartsWith),
            t if word(t, "ends") && word(&second, "with") => two(self, Op::EndsWith),
            t if word(t, "in") => {
                self.next += 1;
                self.set(key, false)
            }
            t if word(t, "notin") => {
                self.next += 1;
                self.set(key, true)
            }
            t if word(t, "not") && word(&second, "in") => {
                self.next += 2;
                self.set(key, true)
            }
            _ => self.unexpected(expected),
        }
    }

    fn compare(&mut self, key: String, op: Op) -> Result<Node, ParseError> {
        let value = self.text()?;
        Ok(Node::Compare { key, op, value })
    }

    fn text(&mut self) -> Result<String, ParseError> {
        let Token::Text(text) = self.peek().clone() else {
            return self.unexpected("a string in single or double quotes");
        };
        self.next += 1;
        Ok(text)
    }

    fn set(&mut self, key: String, negated: bool) -> Result<Node, ParseError> {
        self.expect(&Token::OpenSet, "'{'")?;
        let mut values = BTreeSet::new();
        while !self.take(&Token::CloseSet) {
            values.insert(self.text()?);
            if !self.take(&Token::Comma) {
                self.expect(&Token::CloseSet, "',' or '}'")?;
                break;
            }
        }
        Ok(Node::In { key, values, negated })
    }
}
