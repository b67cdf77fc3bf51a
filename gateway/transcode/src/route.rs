//! From a method and a raw path to a binding: one trie for each HTTP method, no regular expressions.
//!
//! A literal wins over `*`, and `*` over `**`, segment by segment from the left. A path is split while still encoded,
//! so an escaped slash never makes a segment. Text after the last `:` is a verb only where a template has that verb;
//! elsewhere the colon is data.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use crate::percent;
use crate::rule::{self, Binding, HttpMethod, RuleError, RuleReason};
use crate::template::Segment;

/// What a method and a path lead to.
#[derive(Clone, Debug)]
pub enum Lookup<'a> {
    /// A binding.
    Bound(&'a Binding),
    /// The path is bound with these methods alone.
    MethodNotAllowed(Vec<Method>),
    /// No binding has the path.
    Unbound,
}

/// A binding with the path that it matched, still encoded and without its verb.
pub(crate) struct Route<'r, 'p> {
    pub binding: &'r Binding,
    /// The place of the binding among all.
    pub index: usize,
    path: &'p str,
    /// Where each segment starts in `path`.
    starts: Vec<usize>,
}

impl<'p> Route<'_, 'p> {
    /// The raw text from one segment up to another, or up to the end.
    pub fn capture(&self, start: usize, end: Option<usize>) -> &'p str {
        let Some(from) = self.starts.get(start) else { return "" };
        let to = end
            .and_then(|end| self.starts.get(end))
            .map_or(self.path.len(), |next| next - 1);
        &self.path[*from..to]
    }
}

#[derive(Debug, Default)]
pub(crate) struct Router {
    bindings: Vec<Binding>,
    tries: Vec<(Method, Node)>,
    any: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    one: Option<Box<Node>>,
    rest: Vec<Leaf>,
    here: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    verb: Option<String>,
    binding: usize,
}

impl Router {
    pub fn new(bindings: Vec<Binding>) -> Result<Self, RuleError> {
        let mut router = Self::default();
        for (index, binding) in bindings.iter().enumerate() {
            let node = match &binding.verb {
                HttpMethod::Any => &mut router.any,
                HttpMethod::Only(method) => {
                    let at = router
                        .tries
                        .iter()
                        .position(|(other, _)| other == method)
                        .unwrap_or_else(|| {
                            router.tries.push((method.clone(), Node::default()));
                            router.tries.len() - 1
                        });
                    &mut router.tries[at].1
                }
            };
            if let Some(other) = node.insert(binding, index) {
                let reason = RuleReason::Duplicate(bindings[other].method.full_name().to_owned());
                return Err(rule::rule_error(&binding.method, binding.template.as_str(), reason));
            }
        }
        router.bindings = bindings;
        Ok(router)
    }

    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The binding for a request. `HEAD` falls back to the binding of a unary `GET`.
    pub fn route<'p>(&self, method: &Method, path: &'p str) -> Option<Route<'_, 'p>> {
        let split = Split::new(path)?;
        let (index, path) = self.find(method, &split).or_else(|| match *method {
            Method::HEAD => self
                .find(&Method::GET, &split)
                .filter(|(index, _)| self.answers_head(*index)),
            _ => None,
        })?;
        Some(Route {
            binding: &self.bindings[index],
            index,
            path,
            starts: split.starts,
        })
    }

    /// The methods that the path is bound with, for `Allow`.
    pub fn allowed(&self, path: &str) -> Vec<Method> {
        let Some(split) = Split::new(path) else {
            return Vec::new();
        };
        let mut allowed = Vec::new();
        for (method, trie) in &self.tries {
            if let Some((index, _)) = split.find_in(trie) {
                allowed.push(method.clone());
                if *method == Method::GET && self.answers_head(index) {
                    allowed.push(Method::HEAD);
                }
            }
        }
        if let Some(first) = allowed.iter().position(|it| it == Method::HEAD) {
            let mut at = 0..;
            allowed.retain(|it| at.next() == Some(first) || it != Method::HEAD);
        }
        allowed
    }

    fn answers_head(&self, get: usize) -> bool {
        !self.bindings[get].method.is_server_streaming()
    }

    fn find<'p>(&self, method: &Method, split: &Split<'p>) -> Option<(usize, &'p str)> {
        let trie = self.tries.iter().find(|(it, _)| it == method).map(|(_, trie)| trie);
        trie.and_then(|trie| split.find_in(trie))
            .or_else(|| split.find_in(&self.any))
    }
}

/// A path cut at its slashes.
struct Split<'p> {
    path: &'p str,
    starts: Vec<usize>,
    /// Where the last colon of the last segment stands.
    colon: Option<usize>,
}

impl<'p> Split<'p> {
    fn new(path: &'p str) -> Option<Self> {
        path.strip_prefix('/')?;
        let starts: Vec<usize> = path
            .bytes()
            .enumerate()
            .filter(|(_, it)| *it == b'/')
            .map(|(at, _)| at + 1)
            .collect();
        let last = *starts.last()?;
        let colon = path[last..].rfind(':').map(|at| last + at);
        Some(Self { path, starts, colon })
    }

    /// The binding in this trie and the path without its verb: the text after the colon as a verb, or else as data.
    fn find_in(&self, trie: &Node) -> Option<(usize, &'p str)> {
        if let Some(colon) = self.colon
            && let Ok(verb) = percent::decode(&self.path[colon + 1..])
            && let Some(index) = trie.find(&self.path[..colon], &self.starts, Some(&verb))
        {
            return Some((index, &self.path[..colon]));
        }
        trie.find(self.path, &self.starts, None).map(|index| (index, self.path))
    }
}

impl Node {
    /// Adds a binding; gives back the one that already answers to the same requests.
    fn insert(&mut self, binding: &Binding, index: usize) -> Option<usize> {
        let mut node = self;
        let mut rest = false;
        for segment in binding.template.segments() {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => rest = true,
            }
        }
        let leaves = if rest { &mut node.rest } else { &mut node.here };
        let verb = binding.template.verb().map(str::to_owned);
        if let Some(other) = leaves.iter().find(|leaf| leaf.verb == verb) {
            return Some(other.binding);
        }
        leaves.push(Leaf { verb, binding: index });
        None
    }

    /// Walks the trie. Each node is reached by one prefix alone, so backtracking visits none twice.
    fn find(&self, path: &str, starts: &[usize], verb: Option<&str>) -> Option<usize> {
        let with_verb = |leaves: &[Leaf]| leaves.iter().find(|it| it.verb.as_deref() == verb).map(|it| it.binding);
        let Some((start, tail)) = starts.split_first() else {
            return with_verb(&self.here).or_else(|| with_verb(&self.rest));
        };
        let raw = &path[*start..tail.first().map_or(path.len(), |next| next - 1)];
        let literal = || {
            // Two spellings of one literal (`~` and `%7E`) are the same path.
            let text = percent::decode(raw).unwrap_or(Cow::Borrowed(raw));
            self.literals.get(text.as_ref())?.find(path, tail, verb)
        };
        let one = || self.one.as_ref().filter(|_| !raw.is_empty())?.find(path, tail, verb);
        literal().or_else(one).or_else(|| with_verb(&self.rest))
    }
}
