//! The path template grammar of `google/api/http.proto`.
//!
//! ```text
//! Template = "/" Segments [ Verb ] ;
//! Segments = Segment { "/" Segment } ;
//! Segment  = "*" | "**" | LITERAL | Variable ;
//! Variable = "{" FieldPath [ "=" Segments ] "}" ;
//! FieldPath = IDENT { "." IDENT } ;
//! Verb     = ":" LITERAL ;
//! ```
//!
//! Parsing flattens: a variable becomes a range over the template's segments, so that matching a path never has to
//! look inside one. `**` may stand last only, as the specification says; text beside a wildcard or a variable in the
//! same segment is not in the grammar.

use std::fmt;
use std::ops::Range;

use crate::percent;

/// One path template, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

/// One segment of a template, variables taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Matches this text, percent-decoded.
    Literal(String),
    /// `*`: matches exactly one segment that is not empty.
    One,
    /// `**`: matches the rest of the path, also none of it.
    Rest,
}

/// A variable and the segments of the template that it captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The request field that it sets, dotted when nested.
    pub field_path: String,
    /// The captured segments, as indices into [`Template::segments`].
    pub range: Range<usize>,
}

/// Why a text is not a path template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {reason}")]
pub struct TemplateError {
    /// Where the grammar was left.
    pub at: usize,
    /// What was wrong there.
    pub reason: TemplateReason,
}

/// The ways in which a text can fail to be a path template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TemplateReason {
    #[error("a template starts with '/'")]
    NoLeadingSlash,
    #[error("a segment is empty")]
    EmptySegment,
    #[error("'**' must be the last segment")]
    RestNotLast,
    #[error("a variable stands inside a variable")]
    NestedVariable,
    #[error("a variable is not closed with '}}'")]
    UnclosedVariable,
    #[error("a field path is identifiers joined with '.'")]
    FieldPath,
    #[error("the same field is captured twice")]
    RepeatedVariable,
    #[error("a verb is text after the last segment, without '/', ':' or wildcards")]
    Verb,
    #[error("this character cannot stand here")]
    UnexpectedCharacter,
    #[error("a '%' does not start an escape of UTF-8 text")]
    Escape,
}

impl Template {
    /// Parses a template such as `/v1/{name=shelves/*/books/*}:publish`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser = Parser {
            text,
            at: 0,
            segments: Vec::new(),
            variables: Vec::new(),
        };
        if !parser.eat('/') {
            return Err(parser.error(TemplateReason::NoLeadingSlash));
        }
        parser.segments(false)?;
        let verb = if parser.eat(':') {
            let start = parser.at;
            let verb = parser.literal()?;
            if verb.is_empty() || parser.at != text.len() {
                return Err(TemplateError {
                    at: start,
                    reason: TemplateReason::Verb,
                });
            }
            Some(verb)
        } else {
            None
        };
        if parser.at != text.len() {
            return Err(parser.error(TemplateReason::UnexpectedCharacter));
        }
        let Parser {
            segments, variables, ..
        } = parser;
        Ok(Self {
            text: text.to_owned(),
            segments,
            variables,
            verb,
        })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments in order, variables taken apart.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The variables in order.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The custom verb, without its colon.
    pub fn verb(&self) -> Option<&str> {
        self.verb.as_deref()
    }

    /// Whether the variable spans, or may span, more or less than exactly one segment.
    pub fn is_multi_segment(&self, variable: &Variable) -> bool {
        variable.range.len() != 1 || self.segments[variable.range.start] == Segment::Rest
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn error(&self, reason: TemplateReason) -> TemplateError {
        TemplateError { at: self.at, reason }
    }

    fn segments(&mut self, in_variable: bool) -> Result<(), TemplateError> {
        loop {
            self.segment(in_variable)?;
            if !self.eat('/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), TemplateError> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err(self.error(TemplateReason::RestNotLast));
        }
        match self.peek() {
            Some('*') => {
                self.at += 1;
                let segment = if self.eat('*') { Segment::Rest } else { Segment::One };
                self.segments.push(segment);
            }
            Some('{') if in_variable => return Err(self.error(TemplateReason::NestedVariable)),
            Some('{') => {
                self.at += 1;
                self.variable()?;
            }
            _ => {
                let literal = self.literal()?;
                if literal.is_empty() {
                    return Err(self.error(match self.peek() {
                        None | Some('/' | ':' | '}') => TemplateReason::EmptySegment,
                        Some(_) => TemplateReason::UnexpectedCharacter,
                    }));
                }
                self.segments.push(Segment::Literal(literal));
            }
        }
        // What may follow a segment; anything else is text glued to a wildcard or a variable.
        match self.peek() {
            None | Some('/' | ':') => Ok(()),
            Some('}') if in_variable => Ok(()),
            Some(_) => Err(self.error(TemplateReason::UnexpectedCharacter)),
        }
    }

    fn variable(&mut self) -> Result<(), TemplateError> {
        let name_at = self.at;
        let length = self.text[self.at..]
            .find(['=', '}'])
            .ok_or(self.error(TemplateReason::UnclosedVariable))?;
        let field_path = &self.text[self.at..self.at + length];
        if !field_path.split('.').all(is_identifier) {
            return Err(self.error(TemplateReason::FieldPath));
        }
        if self.variables.iter().any(|other| other.field_path == field_path) {
            return Err(TemplateError {
                at: name_at,
                reason: TemplateReason::RepeatedVariable,
            });
        }
        self.at += length;
        let start = self.segments.len();
        if self.eat('=') {
            self.segments(true)?;
        } else {
            self.segments.push(Segment::One);
        }
        if !self.eat('}') {
            return Err(self.error(TemplateReason::UnclosedVariable));
        }
        self.variables.push(Variable {
            field_path: field_path.to_owned(),
            range: start..self.segments.len(),
        });
        Ok(())
    }

    /// Takes the longest run of literal characters, decoded; it may be empty.
    fn literal(&mut self) -> Result<String, TemplateError> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !is_literal(c)).unwrap_or(rest.len());
        let decoded = percent::decode(&rest[..length])
            .map_err(|_| self.error(TemplateReason::Escape))?
            .into_owned();
        self.at += length;
        Ok(decoded)
    }
}

/// The characters of a path segment in RFC 3986, less those that the grammar uses itself.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;@".contains(c)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
