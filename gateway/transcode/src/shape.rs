//! What a JSON body must satisfy besides being its message: bounded depth, no unknown name, no name twice.
//!
//! A JSON parser keeps the last of two equal names and says nothing, and one field has two names here, `snake_case` and
//! `lowerCamelCase`. An order whose size stands there twice shall not be read as whichever came last. The check walks
//! the text once before the message is built; what is not JSON at all it leaves to the parser, which says where.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::Refusal;
use crate::options::Unknown;

/// Checks a text that shall be a message of this type.
pub(crate) fn check(
    text: &[u8],
    descriptor: &MessageDescriptor,
    unknown: Unknown,
    depth_max: usize,
) -> Result<(), Refusal> {
    let walk = Walk {
        unknown,
        depth_max,
        fault: RefCell::new(None),
    };
    let node = Node {
        walk: &walk,
        kind: message_kind(descriptor),
        depth: 0,
    };
    let _ = node.deserialize(&mut serde_json::Deserializer::from_slice(text));
    match walk.fault.into_inner() {
        None => Ok(()),
        Some((Fault::TooDeep, _)) => Err(Refusal::BodyTooDeep { depth_max }),
        Some((Fault::Unknown, path)) => Err(Refusal::BodyFieldUnknown { field: dotted(path) }),
        Some((Fault::Repeated, path)) => Err(Refusal::BodyFieldRepeated { field: dotted(path) }),
    }
}

#[derive(Clone, Copy)]
enum Fault {
    TooDeep,
    Unknown,
    Repeated,
}

struct Walk {
    unknown: Unknown,
    depth_max: usize,
    /// The first fault, with the way to it from the inside out.
    fault: RefCell<Option<(Fault, Vec<String>)>>,
}

impl Walk {
    fn stop<E: Error>(&self, fault: Fault, at: Option<&str>) -> E {
        *self.fault.borrow_mut() = Some((fault, at.map(str::to_owned).into_iter().collect()));
        E::custom("stopped at a fault")
    }

    /// Adds a step on the way out from a fault.
    fn passed(&self, step: &str) {
        if let Some((_, path)) = self.fault.borrow_mut().as_mut() {
            path.push(step.to_owned());
        }
    }
}

fn dotted(mut path: Vec<String>) -> String {
    path.reverse();
    path.join(".")
}

/// What is known of a value.
#[derive(Clone)]
enum Known {
    /// A message with fields.
    Message(MessageDescriptor),
    /// The entries of a map, or the elements of a list, each with this.
    Each(Box<Known>),
    /// Nothing: a scalar, a well-known type with a JSON form of its own, or an ignored field.
    Nothing,
}

fn message_kind(descriptor: &MessageDescriptor) -> Known {
    match descriptor.package_name() {
        "google.protobuf" => Known::Nothing,
        _ => Known::Message(descriptor.clone()),
    }
}

fn field_kind(field: &FieldDescriptor) -> Known {
    let Kind::Message(descriptor) = field.kind() else {
        return Known::Nothing;
    };
    if field.is_map() {
        let Kind::Message(value) = descriptor.map_entry_value_field().kind() else {
            return Known::Nothing;
        };
        Known::Each(Box::new(message_kind(&value)))
    } else if field.is_list() {
        Known::Each(Box::new(message_kind(&descriptor)))
    } else {
        message_kind(&descriptor)
    }
}

struct Node<'a> {
    walk: &'a Walk,
    kind: Known,
    depth: usize,
}

impl Node<'_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        match self.depth + 1 {
            depth if depth > self.walk.depth_max => Err(self.walk.stop(Fault::TooDeep, None)),
            depth => Ok(depth),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let walk = self.walk;
        // Fields are told apart by number, for each has two names; other members by name.
        let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
        while let Some(Name(name)) = members.next_key()? {
            let (kind, is_new) = match &self.kind {
                Known::Message(descriptor) => {
                    let field = descriptor
                        .get_field_by_json_name(&name)
                        .or_else(|| descriptor.get_field_by_name(&name));
                    match field {
                        Some(field) => (field_kind(&field), numbers.insert(field.number())),
                        None if walk.unknown == Unknown::Refuse && !is_extension(&name) => {
                            return Err(walk.stop(Fault::Unknown, Some(&name)));
                        }
                        None => (Known::Nothing, names.insert(name.clone())),
                    }
                }
                Known::Each(kind) => ((**kind).clone(), names.insert(name.clone())),
                Known::Nothing => (Known::Nothing, names.insert(name.clone())),
            };
            if !is_new {
                return Err(walk.stop(Fault::Repeated, Some(&name)));
            }
            members
                .next_value_seed(Node { walk, kind, depth })
                .inspect_err(|_| walk.passed(&name))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let kind = match self.kind {
            Known::Each(kind) => *kind,
            Known::Message(_) | Known::Nothing => Known::Nothing,
        };
        for at in 0usize.. {
            let node = Node {
                walk: self.walk,
                kind: kind.clone(),
                depth,
            };
            let element = elements
                .next_element_seed(node)
                .inspect_err(|_| self.walk.passed(&at.to_string()))?;
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// ProtoJSON writes the name of an extension in brackets.
fn is_extension(name: &str) -> bool {
    name.starts_with('[') && name.ends_with(']')
}

/// A member's name, borrowed from the text unless it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        source.deserialize_str(Text)
    }
}
