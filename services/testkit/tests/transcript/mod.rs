//! What must be the same through every door: answers with everything taken out that two accounts cannot share, which is ids and times.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Names ids in the order in which they first appear, so that two lives with different ids read the same.
#[derive(Debug, Default)]
pub struct Names {
    account: String,
    trades: BTreeMap<String, String>,
    requests: BTreeMap<String, String>,
}

impl Names {
    pub fn of(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            ..Self::default()
        }
    }

    /// The same value with names for ids.
    pub fn anonymous(&mut self, value: &Value) -> Value {
        self.walk("", value)
    }

    fn walk(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Object(members)
                if members
                    .get("@type")
                    .is_some_and(|it| it == "type.googleapis.com/google.rpc.RequestInfo") =>
            {
                "<request info>".into()
            }
            Value::Object(members) => {
                let walked = members.iter().map(|(key, value)| (key.clone(), self.walk(key, value)));
                Value::Object(walked.collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|item| self.walk(key, item)).collect(),
            Value::String(text) => self.text(key, text),
            other => other.clone(),
        }
    }

    fn text(&mut self, key: &str, text: &str) -> Value {
        if text.is_empty() {
            return text.into();
        }
        let named = match key {
            "accountId" | "account_id" => "<account>".to_owned(),
            "tradeId" | "trade_id" => name(&mut self.trades, "T", text),
            "requestId" | "request_id" => name(&mut self.requests, "R", text),
            "sequence" | "resume_after_sequence" | "asOfSequence" | "lastSequence" | "resumeAfterSequence"
                if text != "0" =>
            {
                "<sequence>".to_owned()
            }
            "updateId" => "<update>".to_owned(),
            "nextPageToken" | "page_token" => "<page>".to_owned(),
            "age_ms" => "<age>".to_owned(),
            key if key.ends_with("Time") => "<time>".to_owned(),
            _ => self.within(text),
        };
        named.into()
    }

    /// Text for a person, which may name an id or an age.
    fn within(&self, text: &str) -> String {
        let mut text = text.replace(&format!("account {}", self.account), "account <account>");
        for (id, name) in &self.trades {
            // The engine's own words name a trade by its number.
            let number = id.split_once('-').map_or(id.as_str(), |(_, number)| number);
            for id in [id, number] {
                text = replaced(&text, &format!("trade {id}"), &format!("trade {name}"));
            }
        }
        for (id, name) in &self.requests {
            text = text.replace(id, name);
        }
        masked(&masked(&text, "age ", " us"), "(from ", " ms)")
    }
}

/// Replaces a word that ends in a number, but not the beginning of a longer number.
fn replaced(text: &str, from: &str, to: &str) -> String {
    let mut parts = text.split(from).peekable();
    let mut out = String::new();
    while let Some(part) = parts.next() {
        out += part;
        if let Some(next) = parts.peek() {
            out += if next.starts_with(|it: char| it.is_ascii_digit() || it == '-') {
                from
            } else {
                to
            };
        }
    }
    out
}

fn name(names: &mut BTreeMap<String, String>, letter: &str, id: &str) -> String {
    let next = format!("{letter}{}", names.len() + 1);
    names.entry(id.to_owned()).or_insert(next).clone()
}

/// The number between two words taken out.
fn masked(text: &str, before: &str, after: &str) -> String {
    let Some(start) = text.find(before).map(|at| at + before.len()) else {
        return text.to_owned();
    };
    let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || !text[start + digits..].starts_with(after) {
        return text.to_owned();
    }
    format!("{}<n>{}", &text[..start], &text[start + digits..])
}
