//! One binding as an operation: parameters from path and query, the body, the answers.

use std::collections::BTreeMap;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};
use transcode::{Binding, HttpMethod};

use crate::Info;
use crate::comment::Commented as _;
use crate::schema::{Schemas, describe as describe_schema};

/// How deep fields of messages become query parameters.
const QUERY_DEPTH_MAX: usize = 4;

/// HTTP method, in lower case, and path; nothing for a binding of any method.
pub(crate) fn place(binding: &Binding) -> Option<(String, String)> {
    let HttpMethod::Only(method) = binding.http_method() else {
        return None;
    };
    let template = binding.template();
    // `{name=shelves/*}` is a variable with a pattern there, and only a name here.
    let mut path = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').unwrap_or((after, ""));
        let name = variable.split('=').next().unwrap_or(variable);
        path.push_str(&format!("{before}{{{name}}}"));
        rest = after;
    }
    path.push_str(rest);
    Some((method.as_str().to_ascii_lowercase(), path))
}

/// The services, with their comments.
pub(crate) fn tags(bindings: &[Binding]) -> Value {
    let mut tags = BTreeMap::new();
    for binding in bindings {
        let service = binding.method().parent_service().clone();
        tags.entry(service.name().to_owned())
            .or_insert_with(|| service.comment());
    }
    tags.into_iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect()
}

/// The operation object.
pub(crate) fn describe(binding: &Binding, info: &Info, schemas: &mut Schemas) -> Value {
    let method = binding.method();
    let comment = method.comment();
    let summary = comment.split("\n\n").next().unwrap_or_default();
    let input = method.input();
    let in_path: Vec<&str> = binding
        .template()
        .variables()
        .iter()
        .map(|variable| variable.field_path.as_str())
        .collect();
    let mut operation = json!({
        "operationId": format!("{}_{}", method.parent_service().name(), method.name()),
        "tags": [method.parent_service().name()],
        "summary": summary,
        "description": comment,
        "parameters": parameters(binding, &input, &in_path, schemas),
        "responses": {"200": answer(binding, schemas), "default": failure(schemas, method)},
    });
    if let Some(body) = body(binding, &input, &in_path, schemas) {
        operation["requestBody"] = body;
    }
    if info.bearer {
        operation["security"] = json!([{"bearer": []}]);
    }
    operation
}

fn parameters(binding: &Binding, input: &MessageDescriptor, in_path: &[&str], schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    for path in in_path {
        let field = field_at(input, path);
        let mut schema = field
            .as_ref()
            .map_or_else(|| json!({"type": "string"}), |field| schemas.field(field));
        let comment = field.map(|field| field.comment()).unwrap_or_default();
        schema.as_object_mut().map(|schema| schema.remove("description"));
        parameters
            .push(json!({"name": path, "in": "path", "required": true, "schema": schema, "description": comment}));
    }
    let covered = match binding.body() {
        "*" => return parameters,
        field => field,
    };
    let mut query = Vec::new();
    leaves(input, "", QUERY_DEPTH_MAX, &mut query);
    for (json_path, proto_path, field) in query {
        let in_body = !covered.is_empty() && proto_path.split('.').next() == Some(covered);
        if in_path.contains(&proto_path.as_str()) || in_body {
            continue;
        }
        let mut schema = schemas.field(&field);
        schema.as_object_mut().map(|schema| schema.remove("description"));
        let mut parameter = json!({"name": json_path, "in": "query", "schema": schema});
        describe_schema(&mut parameter, &field.comment());
        parameters.push(parameter);
    }
    parameters
}

/// Fields that a query can set: by JSON names and by proto names, messages taken apart.
fn leaves(message: &MessageDescriptor, prefix: &str, depth: usize, out: &mut Vec<(String, String, FieldDescriptor)>) {
    for field in message.fields() {
        let json_path = format!("{prefix}{}", field.json_name());
        match field.kind() {
            _ if field.is_map() => {}
            Kind::Message(nested) if !nested.full_name().starts_with("google.protobuf.") => {
                if depth > 0 && !field.is_list() {
                    let before = out.len();
                    leaves(&nested, &format!("{json_path}."), depth - 1, out);
                    for (_, proto_path, _) in &mut out[before..] {
                        *proto_path = format!("{}.{proto_path}", field.name());
                    }
                }
            }
            _ => out.push((json_path, field.name().to_owned(), field)),
        }
    }
}

fn field_at(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.get_field_by_name(first)?;
    match (rest, field.kind()) {
        (None, _) => Some(field),
        (Some(rest), Kind::Message(nested)) => field_at(&nested, rest),
        (Some(_), _) => None,
    }
}

fn body(binding: &Binding, input: &MessageDescriptor, in_path: &[&str], schemas: &mut Schemas) -> Option<Value> {
    let schema = match binding.body() {
        "" => return None,
        "*" => schemas.object(input, in_path),
        field => schemas.field(&input.get_field_by_name(field)?),
    };
    Some(json!({"required": true, "content": {"application/json": {"schema": schema}}}))
}

fn answer(binding: &Binding, schemas: &mut Schemas) -> Value {
    let output = binding.method().output();
    let whole = output.get_field_by_name(binding.response_body());
    let message = match &whole {
        Some(field) => schemas.field(field),
        None => schemas.message(&output),
    };
    if !binding.method().is_server_streaming() {
        let comment = output.comment();
        let description = if comment.is_empty() {
            "The answer.".to_owned()
        } else {
            comment
        };
        return json!({"description": description, "content": {"application/json": {"schema": message}}});
    }
    // OpenAPI 3.1 has no word for a sequence in NDJSON or events: the schema is of one element.
    json!({
        "description": "Messages as they come. `Accept` chooses the framing; the schema of NDJSON and events is that of one message.",
        "content": {
            "application/x-ndjson": {"schema": message},
            "text/event-stream": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "array", "items": message}},
        },
    })
}

fn failure(schemas: &mut Schemas, method: &prost_reflect::MethodDescriptor) -> Value {
    let status = method.parent_pool().get_message_by_name("google.rpc.Status");
    let schema = status.map_or_else(
        || {
            json!({
                "type": "object",
                "properties": {
                    "code": {"type": "integer", "format": "int32"},
                    "message": {"type": "string"},
                    "details": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"@type": {"type": "string"}},
                        "required": ["@type"],
                        "additionalProperties": true,
                    }},
                },
                "required": ["code", "message"],
            })
        },
        |status| schemas.message(&status),
    );
    json!({
        "description": "What went wrong: a `google.rpc.Status` with typed details.",
        "content": {"application/json": {"schema": schema}},
    })
}
