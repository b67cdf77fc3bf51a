//! Messages as JSON schemas, by the rules of ProtoJSON.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::comment::Commented as _;

/// The named schemas of a document; a message is described once, when it is first referred to.
#[derive(Default)]
pub(crate) struct Schemas {
    named: BTreeMap<String, Value>,
}

impl Schemas {
    /// A reference to a message, or its own schema when JSON has a form of its own for it.
    pub(crate) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(known) = well_known(message.full_name()) {
            return known;
        }
        let name = message.full_name();
        if !self.named.contains_key(name) {
            // First its place, so that a message that holds itself comes to an end.
            self.named.insert(name.to_owned(), Value::Null);
            let schema = self.object(message, &[]);
            self.named.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// A message as an object, without some of its fields.
    pub(crate) fn object(&mut self, message: &MessageDescriptor, without: &[&str]) -> Value {
        let mut properties = Map::new();
        for field in message.fields().filter(|field| !without.contains(&field.name())) {
            properties.insert(field.json_name().to_owned(), self.field(&field));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        describe(&mut schema, &message.comment());
        schema
    }

    /// A field, with its comment.
    pub(crate) fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            json!({"type": "object", "additionalProperties": self.kind(&entry.map_entry_value_field().kind())})
        } else if field.is_list() {
            json!({"type": "array", "items": self.kind(&field.kind())})
        } else {
            self.kind(&field.kind())
        };
        let mut comment = field.comment();
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let others: Vec<String> = oneof
                .fields()
                .filter(|other| other.name() != field.name())
                .map(|other| format!("`{}`", other.json_name()))
                .collect();
            if !others.is_empty() {
                comment = format!("{comment}\n\nAt most one of this and {}.", others.join(", "));
            }
        }
        describe(&mut schema, &comment);
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double => floating("double"),
            Kind::Float => floating("float"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            // As text, because JavaScript rounds such numbers past 2^53; numbers are read too.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "pattern": "^-?[0-9]+$"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "pattern": "^[0-9]+$"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Message(message) => self.message(message),
            Kind::Enum(names) => self.names(names),
        }
    }

    fn names(&mut self, names: &EnumDescriptor) -> Value {
        let name = names.full_name();
        if !self.named.contains_key(name) {
            let values: Vec<_> = names.values().map(|value| value.name().to_owned()).collect();
            let words = names
                .values()
                .map(|value| format!("* `{}`: {}", value.name(), value.comment()));
            let comment = format!("{}\n\n{}", names.comment(), words.collect::<Vec<_>>().join("\n"));
            let mut schema = json!({"type": "string", "enum": values});
            describe(&mut schema, &comment);
            self.named.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// All of them, by name.
    pub(crate) fn finish(self) -> Value {
        json!(self.named)
    }
}

/// Puts a description beside a schema; OpenAPI 3.1 allows it beside a reference too.
pub(crate) fn describe(schema: &mut Value, comment: &str) {
    if !comment.is_empty() {
        schema["description"] = json!(comment);
    }
}

fn floating(format: &str) -> Value {
    let words = json!({"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]});
    json!({"oneOf": [{"type": "number", "format": format}, words]})
}

/// Messages that have a form of their own in JSON.
fn well_known(name: &str) -> Option<Value> {
    let schema = match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({"type": "string", "format": "date-time"}),
        "Duration" => json!({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"}),
        "FieldMask" => json!({"type": "string"}),
        "Empty" => json!({"type": "object"}),
        "Struct" => json!({"type": "object", "additionalProperties": true}),
        "Value" => json!({}),
        "ListValue" => json!({"type": "array", "items": {}}),
        "Any" => json!({
            "type": "object",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
            "additionalProperties": true,
        }),
        "StringValue" => json!({"type": ["string", "null"]}),
        "BytesValue" => json!({"type": ["string", "null"], "contentEncoding": "base64"}),
        "BoolValue" => json!({"type": ["boolean", "null"]}),
        "Int32Value" => json!({"type": ["integer", "null"], "format": "int32"}),
        "UInt32Value" => json!({"type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX}),
        "Int64Value" => json!({"type": ["string", "null"], "pattern": "^-?[0-9]+$"}),
        "UInt64Value" => json!({"type": ["string", "null"], "pattern": "^[0-9]+$"}),
        "FloatValue" | "DoubleValue" => json!({"type": ["number", "string", "null"]}),
        _ => return None,
    };
    Some(schema)
}
