//! Query parameters as fields.
//!
//! A key is a field path in proto or JSON names. A repeated field takes each of its pairs; any other field takes one.
//! A map takes `labels[key]=value`. What the path or the body provides cannot come from the query.

use std::collections::HashSet;

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};

use crate::error::Refusal;
use crate::field::{self, FieldPath};
use crate::options::{Options, Unknown};
use crate::percent;
use crate::rule::BodyRule;

/// Sets the fields that the query names.
pub(crate) fn apply(
    query: &str,
    body: &BodyRule,
    message: &mut DynamicMessage,
    descriptor: &MessageDescriptor,
    options: &Options,
) -> Result<(), Refusal> {
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    if pairs().count() > options.limits.query_pairs_max {
        return Err(Refusal::QueryTooLong {
            pairs_max: options.limits.query_pairs_max,
        });
    }
    let mut seen = HashSet::new();
    for pair in pairs() {
        let (raw_key, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent::decode_query(raw_key).map_err(|cause| Refusal::QueryInvalid {
            key: raw_key.to_owned(),
            cause: cause.to_string(),
        })?;
        if options.ignored_query.iter().any(|ignored| *ignored == key) {
            continue;
        }
        let invalid = |cause: String| Refusal::QueryInvalid {
            key: key.clone().into_owned(),
            cause,
        };
        let Some(target) = Target::find(&key, body, descriptor) else {
            match options.unknown_query {
                Unknown::Refuse => return Err(Refusal::QueryUnknown { key: key.into_owned() }),
                Unknown::Ignore => continue,
            }
        };
        let value = percent::decode_query(raw_value).map_err(|cause| invalid(cause.to_string()))?;
        if !target.takes_several() && !seen.insert(target.path.dotted()) {
            return Err(invalid(
                "it is given more than once, and the field takes one value".to_owned(),
            ));
        }
        let value = target.parse(&value).map_err(invalid)?;
        let place = target.path.get_mut(message).map_err(|taken| Refusal::OneofConflict {
            field: target.path.dotted(),
            other: taken.other,
        })?;
        match (place, target.map_key) {
            (Value::List(list), _) => list.push(value),
            (Value::Map(map), Some(map_key)) => {
                if map.insert(map_key, value).is_some() {
                    return Err(Refusal::QueryInvalid {
                        key: key.into_owned(),
                        cause: "this key of the map is given more than once".to_owned(),
                    });
                }
            }
            (place, _) => *place = value,
        }
    }
    Ok(())
}

/// The field that a key names, and the key within it where it is a map.
struct Target {
    path: FieldPath,
    map_key: Option<MapKey>,
}

impl Target {
    fn find(key: &str, body: &BodyRule, descriptor: &MessageDescriptor) -> Option<Self> {
        if matches!(body, BodyRule::Whole) {
            return None;
        }
        let (name, map_key) = match key.strip_suffix(']').and_then(|open| open.split_once('[')) {
            Some((name, map_key)) => (name, Some(map_key)),
            None => (key, None),
        };
        let path = FieldPath::resolve(descriptor, name).ok()?;
        if matches!(body, BodyRule::Field(field) if field == path.root()) {
            return None;
        }
        let leaf = path.leaf();
        let map_key = match (map_key, leaf.kind()) {
            (None, kind) => {
                if leaf.is_map() || !field::is_textual(&kind) {
                    return None;
                }
                None
            }
            (Some(text), Kind::Message(entry)) if leaf.is_map() => {
                if !field::is_textual(&entry.map_entry_value_field().kind()) {
                    return None;
                }
                let parsed = field::parse_text(&entry.map_entry_key_field().kind(), text).ok()?;
                Some(parsed.into_map_key()?)
            }
            (Some(_), _) => return None,
        };
        Some(Self { path, map_key })
    }

    fn takes_several(&self) -> bool {
        self.path.leaf().is_list() || self.path.leaf().is_map()
    }

    fn parse(&self, text: &str) -> Result<Value, String> {
        match self.path.leaf().kind() {
            Kind::Message(entry) if self.map_key.is_some() => {
                field::parse_text(&entry.map_entry_value_field().kind(), text)
            }
            kind => field::parse_text(&kind, text),
        }
    }
}
