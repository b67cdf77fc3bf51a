//! What the contract says of each method: its messages, and its address by REST. From the descriptors, as any client could.

use std::sync::LazyLock;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
    Value as Field,
};
use serde_json::{Map, Value};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("our own build made it"));

/// The answer of a method as another client wrote it in ProtoJSON, in the form in which answers are compared.
pub fn canonical_answer(name: &str, json: &Value) -> Value {
    rewritten(&method(name).output(), json)
}

/// The same of a refusal.
pub fn canonical_error(json: &Value) -> Value {
    rewritten(&message("google.rpc.Status"), json)
}

/// All methods of the contract.
pub fn methods() -> Vec<String> {
    let services = POOL.services().filter(|it| it.package_name() == "fulcrum.v1");
    services
        .flat_map(|service| {
            service
                .methods()
                .map(|method| method.name().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The request of a method.
pub fn input(name: &str) -> MessageDescriptor {
    method(name).input()
}

/// Whether a method answers with a stream.
pub fn streams(name: &str) -> bool {
    method(name).is_server_streaming()
}

/// Whether a method changes something: those that take a body do.
pub fn mutates(name: &str) -> bool {
    binding(&method(name)).0 == Method::POST
}

/// The fields of a request that stand in its address.
pub fn in_path(name: &str) -> Vec<String> {
    let (_, template, _) = binding(&method(name));
    let parts = template.split('{').skip(1);
    parts
        .filter_map(|part| Some(part.split_once('}')?.0.to_owned()))
        .collect()
}

/// Verb, address and body of a call by REST.
pub fn by_rest(name: &str, request: &Value) -> (Method, String, Vec<u8>) {
    rest(&method(name), request)
}

pub(super) fn method(name: &str) -> MethodDescriptor {
    let services = POOL.services().filter(|it| it.package_name() == "fulcrum.v1");
    let mut methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .find(|method| method.name() == name)
        .unwrap_or_else(|| panic!("there is no method {name}"))
}

pub(super) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name)
        .unwrap_or_else(|| panic!("there is no message {name}"))
}

pub(super) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn read(descriptor: &MessageDescriptor, json: &Value) -> DynamicMessage {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), json, &options)
        .unwrap_or_else(|error| panic!("{json} is no {}: {error}", descriptor.full_name()))
}

pub(super) fn to_bytes(descriptor: &MessageDescriptor, json: &Value) -> Vec<u8> {
    read(descriptor, json).encode_to_vec()
}

pub(super) fn from_bytes(descriptor: &MessageDescriptor, bytes: &[u8]) -> Value {
    to_json(&DynamicMessage::decode(descriptor.clone(), bytes).expect("a message of its method"))
}

/// The one form in which answers are compared: every field, by its JSON name.
pub(super) fn to_json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().skip_default_fields(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("JSON")
}

/// JSON that a door wrote, in the form in which answers are compared.
pub(super) fn rewritten(descriptor: &MessageDescriptor, json: &Value) -> Value {
    to_json(&read(descriptor, json))
}

/// How REST reaches a method: verb, template of the address, and what the body is.
fn binding(method: &MethodDescriptor) -> (Method, String, String) {
    let extension = POOL.get_extension_by_name("google.api.http").expect("the annotation");
    let options = method.options();
    let rule = options.get_extension(&extension);
    let rule = rule.as_message().expect("a rule");
    let text = |name: &str| {
        let field = rule.get_field_by_name(name).map(|it| it.into_owned());
        field
            .and_then(|it: Field| it.as_str().map(ToOwned::to_owned))
            .unwrap_or_default()
    };
    let (verb, template) = match (text("get"), text("post")) {
        (get, _) if !get.is_empty() => (Method::GET, get),
        (_, post) => (Method::POST, post),
    };
    (verb, template, text("body"))
}

/// Verb, address and body by the annotation of a method.
pub(super) fn rest(method: &MethodDescriptor, request: &Value) -> (Method, String, Vec<u8>) {
    let (verb, template, of_body) = binding(method);
    let mut rest: Map<String, Value> = request.as_object().expect("an object").clone();
    let mut path = String::new();
    for (index, part) in template.split('{').enumerate() {
        let Some((name, fixed)) = part.split_once('}').filter(|_| index > 0) else {
            path += part;
            continue;
        };
        let value = rest
            .remove(name)
            .unwrap_or_else(|| panic!("{name} is part of the address"));
        let value = value.as_str().expect("text").to_owned();
        path += &utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string();
        path += fixed;
    }
    if of_body == "*" {
        return (verb, path, Value::Object(rest).to_string().into_bytes());
    }
    let pairs = rest.iter().flat_map(|(name, value)| {
        let values = match value {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        values.into_iter().map(move |value| {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
        })
    });
    let query: Vec<String> = pairs.collect();
    let mark = if query.is_empty() { "" } else { "?" };
    (verb, format!("{path}{mark}{}", query.join("&")), Vec::new())
}
