//! Paths to fields, and text as field values: what a path segment, a query parameter and a header have in common.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use serde::de::value::{Error as TextError, StrDeserializer};

/// A field of a message or of the messages in it: every step but the last is a singular message field.
#[derive(Clone, Debug)]
pub(crate) struct FieldPath {
    steps: Vec<FieldDescriptor>,
}

/// Why a dotted name leads to no field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("{message} has no field '{name}'")]
    Unknown { message: String, name: String },
    #[error("'{name}' is not a singular message, so it has no fields to set")]
    NotAMessage { name: String },
    #[error("more than {STEPS_MAX} steps")]
    TooLong,
}

/// How far a path goes down: recursive messages would let a URL build one that no decoder takes.
const STEPS_MAX: usize = 32;

/// The oneof of a field already has another member set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneofTaken {
    pub other: String,
}

impl FieldPath {
    /// Finds a dotted name, each part in its proto or its JSON form.
    pub fn resolve(message: &MessageDescriptor, dotted: &str) -> Result<Self, PathError> {
        let mut steps: Vec<FieldDescriptor> = Vec::new();
        let mut message = message.clone();
        for name in dotted.split('.') {
            if steps.len() == STEPS_MAX {
                return Err(PathError::TooLong);
            }
            if let Some(parent) = steps.last() {
                message = match parent.kind() {
                    Kind::Message(inner) if !parent.is_list() && !parent.is_map() => inner,
                    _ => {
                        return Err(PathError::NotAMessage {
                            name: parent.name().to_owned(),
                        });
                    }
                };
            }
            let field = message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name))
                .ok_or_else(|| PathError::Unknown {
                    message: message.full_name().to_owned(),
                    name: name.to_owned(),
                })?;
            steps.push(field);
        }
        Ok(Self { steps })
    }

    /// The field at the end of the path.
    pub fn leaf(&self) -> &FieldDescriptor {
        self.steps.last().expect("a dotted name has at least one part")
    }

    /// The field of the outermost message.
    pub fn root(&self) -> &FieldDescriptor {
        &self.steps[0]
    }

    /// The path in proto names.
    pub fn dotted(&self) -> String {
        let names: Vec<&str> = self.steps.iter().map(FieldDescriptor::name).collect();
        names.join(".")
    }

    /// The value, if the field and all messages on the way are present.
    pub fn get<'a>(&self, message: &'a DynamicMessage) -> Option<Cow<'a, Value>> {
        let (leaf, parents) = self.steps.split_last().expect("a dotted name has at least one part");
        let mut message = message;
        for step in parents {
            if !message.has_field(step) {
                return None;
            }
            message = match message.get_field(step) {
                Cow::Borrowed(Value::Message(inner)) => inner,
                _ => return None,
            };
        }
        message.has_field(leaf).then(|| message.get_field(leaf))
    }

    /// The place of the value, made with all messages on the way; refused where that would unset a oneof's member.
    pub fn get_mut<'a>(&self, message: &'a mut DynamicMessage) -> Result<&'a mut Value, OneofTaken> {
        let (leaf, parents) = self.steps.split_last().expect("a dotted name has at least one part");
        let mut message = message;
        for step in parents {
            refuse_second_member(message, step)?;
            message = match message.get_field_mut(step) {
                Value::Message(inner) => inner,
                other => unreachable!("a step of a path is a singular message, not {other:?}"),
            };
        }
        refuse_second_member(message, leaf)?;
        Ok(message.get_field_mut(leaf))
    }

    /// Sets the value, with all messages on the way.
    pub fn set(&self, message: &mut DynamicMessage, value: Value) -> Result<(), OneofTaken> {
        *self.get_mut(message)? = value;
        Ok(())
    }
}

fn refuse_second_member(message: &DynamicMessage, field: &FieldDescriptor) -> Result<(), OneofTaken> {
    let Some(oneof) = field.containing_oneof() else {
        return Ok(());
    };
    match oneof.fields().find(|other| other != field && message.has_field(other)) {
        Some(other) => Err(OneofTaken {
            other: other.name().to_owned(),
        }),
        None => Ok(()),
    }
}

/// Whether one text can hold a value of this kind: a scalar, an enum, or a message that JSON writes as a string,
/// a number or a boolean.
pub(crate) fn is_textual(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => {
            wrapped(message).is_some()
                || matches!(
                    message.full_name(),
                    "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
                )
        }
        _ => true,
    }
}

/// The `value` field of a wrapper such as `google.protobuf.Int64Value`.
fn wrapped(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let is_wrapper = matches!(
        message.full_name(),
        "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
    );
    is_wrapper.then(|| message.get_field_by_name("value"))?
}

/// Reads one text as a value of this kind, as ProtoJSON would read it from a string.
pub(crate) fn parse_text(kind: &Kind, text: &str) -> Result<Value, String> {
    let expected = |what: &str| format!("'{text}' is not {what}");
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(expected("'true' or 'false'")),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            text.parse().map(Value::I32).map_err(|_| expected("a 32-bit integer"))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            text.parse().map(Value::I64).map_err(|_| expected("a 64-bit integer"))
        }
        Kind::Uint32 | Kind::Fixed32 => text
            .parse()
            .map(Value::U32)
            .map_err(|_| expected("an unsigned 32-bit integer")),
        Kind::Uint64 | Kind::Fixed64 => text
            .parse()
            .map(Value::U64)
            .map_err(|_| expected("an unsigned 64-bit integer")),
        Kind::Double => match text {
            "NaN" => Ok(Value::F64(f64::NAN)),
            "Infinity" => Ok(Value::F64(f64::INFINITY)),
            "-Infinity" => Ok(Value::F64(f64::NEG_INFINITY)),
            _ => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .map(Value::F64)
                .ok_or_else(|| expected("a number in the range of a double")),
        },
        Kind::Float => match text {
            "NaN" => Ok(Value::F32(f32::NAN)),
            "Infinity" => Ok(Value::F32(f32::INFINITY)),
            "-Infinity" => Ok(Value::F32(f32::NEG_INFINITY)),
            _ => text
                .parse()
                .ok()
                .filter(|number: &f32| number.is_finite())
                .map(Value::F32)
                .ok_or_else(|| expected("a number in the range of a float")),
        },
        Kind::Bytes => parse_base64(text)
            .map(|bytes| Value::Bytes(bytes.into()))
            .ok_or_else(|| expected("base64")),
        Kind::Enum(descriptor) => descriptor
            .get_value_by_name(text)
            .or_else(|| descriptor.get_value_by_name(&format!("{}{text}", prefix(descriptor.name()))))
            .map(|value| value.number())
            .or_else(|| text.parse().ok())
            .map(Value::EnumNumber)
            .ok_or_else(|| expected(&format!("a value of {}", descriptor.full_name()))),
        Kind::Message(descriptor) => parse_message(descriptor, text),
    }
}

/// What the values of a well-named enum begin with: `TradeStatus` gives `TRADE_STATUS_`. A person who types a query leaves it out.
fn prefix(enum_name: &str) -> String {
    let mut prefix = String::with_capacity(enum_name.len() + 4);
    for (at, letter) in enum_name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix.push('_');
    prefix
}

fn parse_message(descriptor: &MessageDescriptor, text: &str) -> Result<Value, String> {
    if let Some(field) = wrapped(descriptor) {
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, parse_text(&field.kind(), text)?);
        return Ok(Value::Message(message));
    }
    if !is_textual(&Kind::Message(descriptor.clone())) {
        return Err(format!("{} cannot be given as text", descriptor.full_name()));
    }
    let source: StrDeserializer<'_, TextError> = StrDeserializer::new(text);
    DynamicMessage::deserialize(descriptor.clone(), source)
        .map(Value::Message)
        .map_err(|cause| cause.to_string())
}

/// Standard or URL-safe, padded or not.
fn parse_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// The value as a text that says no more than the value itself, or nothing for a default, a list or a message.
pub(crate) fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::I32(number) if *number != 0 => Some(number.to_string()),
        Value::I64(number) if *number != 0 => Some(number.to_string()),
        Value::U32(number) if *number != 0 => Some(number.to_string()),
        Value::U64(number) if *number != 0 => Some(number.to_string()),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// The message as `google.api.HttpBody`, if that is its type.
pub(crate) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

/// Whether the field is a singular `google.api.HttpBody`.
pub(crate) fn is_http_body_field(field: &FieldDescriptor) -> bool {
    !field.is_list() && matches!(field.kind(), Kind::Message(message) if is_http_body(&message))
}

/// The content type and the bytes of a `google.api.HttpBody`.
pub(crate) fn http_body_parts(message: &DynamicMessage) -> (String, bytes::Bytes) {
    debug_assert!(is_http_body(&message.descriptor()));
    let content_type = message
        .get_field_by_name("content_type")
        .and_then(|value| value.as_str().map(str::to_owned));
    let data = message
        .get_field_by_name("data")
        .and_then(|value| value.as_bytes().cloned());
    (content_type.unwrap_or_default(), data.unwrap_or_default())
}

/// A `google.api.HttpBody` of these bytes.
pub(crate) fn http_body(descriptor: &MessageDescriptor, content_type: &str, data: bytes::Bytes) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("content_type", Value::String(content_type.to_owned()));
    message.set_field_by_name("data", Value::Bytes(data));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_an_enum_is_its_name_in_capitals() {
        assert_eq!(prefix("TradeStatus"), "TRADE_STATUS_");
        assert_eq!(prefix("Side"), "SIDE_");
    }

    #[test]
    fn a_number_is_read_within_its_range_and_without_guessing() {
        assert_eq!(parse_text(&Kind::Int32, "-7"), Ok(Value::I32(-7)));
        assert_eq!(
            parse_text(&Kind::Uint64, "18446744073709551615"),
            Ok(Value::U64(u64::MAX))
        );
        assert_eq!(
            parse_text(&Kind::Double, "-Infinity"),
            Ok(Value::F64(f64::NEG_INFINITY))
        );
        assert_eq!(
            parse_text(&Kind::Float, "3.40282346638528859811704183484516925440e+38"),
            Ok(Value::F32(f32::MAX))
        );
        for (kind, text) in [
            (Kind::Int32, "2147483648"),
            (Kind::Uint32, "-1"),
            (Kind::Int64, "1.5"),
            (Kind::Int64, ""),
            (Kind::Double, "inf"),
            (Kind::Double, "1e400"),
            (Kind::Float, "1e39"),
            (Kind::Bool, "1"),
            (Kind::Bytes, "*"),
        ] {
            assert!(parse_text(&kind, text).is_err(), "{kind:?} {text}");
        }
    }

    #[test]
    fn base64_is_read_in_both_alphabets_padded_or_not() {
        for text in ["+/+/+w==", "+/+/+w", "-_-_-w", "-_-_-w=="] {
            assert_eq!(
                parse_base64(text).as_deref(),
                Some(&[0xfb, 0xff, 0xbf, 0xfb][..]),
                "{text}"
            );
        }
    }
}
