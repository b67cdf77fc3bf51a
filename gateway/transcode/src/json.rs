//! ProtoJSON in and out, with errors that name the field.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_json::value::RawValue;

use crate::error::Refusal;
use crate::options::{JsonOptions, Limits, Unknown};
use crate::shape;

/// Reads and writes messages the way the options say.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    write: SerializeOptions,
    read: DeserializeOptions,
    unknown_fields: Unknown,
    depth_max: usize,
    proto_names: bool,
}

impl Json {
    pub fn new(options: &JsonOptions, limits: &Limits) -> Self {
        Self {
            write: SerializeOptions::new()
                .skip_default_fields(!options.print_defaults)
                .use_proto_field_name(options.proto_names)
                .use_enum_numbers(options.enum_numbers)
                .stringify_64_bit_integers(options.int64_strings),
            read: DeserializeOptions::new().deny_unknown_fields(options.unknown_fields == Unknown::Refuse),
            unknown_fields: options.unknown_fields,
            depth_max: limits.json_depth_max,
            proto_names: options.proto_names,
        }
    }

    /// Reads a whole message.
    pub fn read(&self, descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Refusal> {
        shape::check(text, descriptor, self.unknown_fields, self.depth_max)?;
        self.read_checked(descriptor, text)
    }

    fn read_checked(&self, descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Refusal> {
        let mut source = serde_json::Deserializer::from_slice(text);
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&mut source, &mut track);
        let read = DynamicMessage::deserialize_with_options(descriptor.clone(), tracked, &self.read);
        match read.and_then(|message| source.end().map(|()| message)) {
            Ok(message) => Ok(message),
            Err(cause) => self.read_again(descriptor, text).ok_or_else(|| {
                let place = track.path().to_string();
                // A dot is a path of no steps, a question mark a step that broke off before it had a name.
                let place = place
                    .strip_suffix('?')
                    .unwrap_or(&place)
                    .trim_end_matches('.')
                    .to_owned();
                body_invalid(place, &cause.to_string())
            }),
        }
    }

    /// Reads a text whose only fault is a float written with the shortest digits, as most languages do: those of the
    /// largest float name a double just past it, and the deserializer compares as doubles.
    fn read_again(&self, descriptor: &MessageDescriptor, text: &[u8]) -> Option<DynamicMessage> {
        let mut value = serde_json::from_slice(text).ok()?;
        if !quote_rounded_floats(&Kind::Message(descriptor.clone()), &mut value) {
            return None;
        }
        DynamicMessage::deserialize_with_options(descriptor.clone(), value, &self.read).ok()
    }

    /// Reads one field of a message, the text being that field's value alone; a `null` leaves it unset.
    pub fn read_field(&self, field: &FieldDescriptor, text: &[u8]) -> Result<DynamicMessage, Refusal> {
        // Checked to be one JSON value first, so that the text cannot bring fields of its own along.
        let value: &RawValue =
            serde_json::from_slice(text).map_err(|cause| body_invalid(String::new(), &cause.to_string()))?;
        let wrapped = format!("{{{}:{}}}", serde_json::Value::from(field.name()), value.get());
        let descriptor = field.parent_message();
        shape::check(
            wrapped.as_bytes(),
            descriptor,
            self.unknown_fields,
            self.depth_max.saturating_add(1),
        )
        .map_err(|refusal| match refusal {
            // The client knows nothing of the wrapping.
            Refusal::BodyTooDeep { .. } => Refusal::BodyTooDeep {
                depth_max: self.depth_max,
            },
            other => other,
        })?;
        self.read_checked(descriptor, wrapped.as_bytes())
    }

    /// Appends the JSON of a message.
    pub fn write(&self, message: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        message.serialize_with_options(&mut serde_json::Serializer::new(out), &self.write)
    }

    /// Appends the JSON of one field of a message, `null` where a message is absent.
    pub fn write_field(
        &self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let value = message.get_field(field);
        if let Some(inner) = value.as_message() {
            if message.has_field(field) {
                return self.write(inner, out);
            }
            out.extend_from_slice(b"null");
            return Ok(());
        }
        let mut alone = DynamicMessage::new(field.parent_message().clone());
        alone.set_field(field, value.into_owned());
        let mut object = Vec::new();
        let write = self.write.clone().skip_default_fields(false);
        alone.serialize_with_options(&mut serde_json::Serializer::new(&mut object), &write)?;
        let members: std::collections::HashMap<&str, &RawValue> = serde_json::from_slice(&object)?;
        let name = if self.proto_names {
            field.name()
        } else {
            field.json_name()
        };
        out.extend_from_slice(members.get(name).map_or("null", |value| value.get()).as_bytes());
        Ok(())
    }
}

fn body_invalid(field: String, cause: &str) -> Refusal {
    let cause = if field.is_empty() {
        cause.to_owned()
    } else {
        format!("'{field}': {cause}")
    };
    Refusal::BodyInvalid { field, cause }
}

/// Turns numbers for float fields that only rounding brings into range into strings, which are read as floats at once.
/// Says whether there was any.
fn quote_rounded_floats(kind: &Kind, value: &mut serde_json::Value) -> bool {
    let is_float = match kind {
        Kind::Float => true,
        Kind::Message(message) => message.full_name() == "google.protobuf.FloatValue",
        _ => false,
    };
    if is_float {
        let past = |double: &f64| double.abs() > f64::from(f32::MAX) && (*double as f32).is_finite();
        let Some(double) = value.as_f64().filter(past) else {
            return false;
        };
        *value = double.to_string().into();
        return true;
    }
    match (kind, value) {
        (Kind::Message(message), serde_json::Value::Object(members)) => {
            let mut found = false;
            for (name, value) in members {
                let field = message
                    .get_field_by_json_name(name)
                    .or_else(|| message.get_field_by_name(name));
                let Some(field) = field else { continue };
                found |= match (field.kind(), value) {
                    (Kind::Message(entry), serde_json::Value::Object(entries)) if field.is_map() => {
                        let kind = entry.map_entry_value_field().kind();
                        entries
                            .iter_mut()
                            .fold(false, |found, (_, it)| quote_rounded_floats(&kind, it) | found)
                    }
                    (kind, serde_json::Value::Array(elements)) if field.is_list() => elements
                        .iter_mut()
                        .fold(false, |found, it| quote_rounded_floats(&kind, it) | found),
                    (kind, value) => quote_rounded_floats(&kind, value),
                };
            }
            found
        }
        _ => false,
    }
}
