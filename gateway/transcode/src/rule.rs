//! `google.api.http` rules as bindings, each checked against the messages it names before a port is bound.

use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderName, Method};
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value,
};

use crate::field::{self, FieldPath};
use crate::options::Options;
use crate::service::MatchedBinding;
use crate::template::{Template, TemplateError};

/// One HTTP method and path template bound to one gRPC method.
#[derive(Clone, Debug)]
pub struct Binding {
    pub(crate) verb: HttpMethod,
    pub(crate) template: Template,
    pub(crate) method: MethodDescriptor,
    pub(crate) grpc_path: PathAndQuery,
    pub(crate) label: MatchedBinding,
    pub(crate) body: BodyRule,
    pub(crate) response_body: Option<FieldDescriptor>,
    pub(crate) variables: Vec<BoundVariable>,
    pub(crate) header_fields: Vec<(HeaderName, FieldPath)>,
    pub(crate) event_id: Option<FieldPath>,
    pub(crate) resume: Option<FieldPath>,
}

/// Which part of the request message the HTTP body is.
#[derive(Clone, Debug)]
pub(crate) enum BodyRule {
    None,
    Whole,
    Field(FieldDescriptor),
}

/// A path variable with the field that it sets.
#[derive(Clone, Debug)]
pub(crate) struct BoundVariable {
    pub path: FieldPath,
    pub start: usize,
    /// One past the last segment; `None` for a variable that ends in `**`.
    pub end: Option<usize>,
    pub multi_segment: bool,
}

/// The HTTP method of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// This one.
    Only(Method),
    /// Any that no other binding of the path asks for: `custom { kind: "*" }`.
    Any,
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(method) => method.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Binding {
    /// The HTTP method.
    pub fn http_method(&self) -> &HttpMethod {
        &self.verb
    }

    /// The path template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The gRPC method.
    pub fn method(&self) -> &MethodDescriptor {
        &self.method
    }

    /// The path of the gRPC method, for example `/library.v1.Library/GetBook`.
    pub fn grpc_path(&self) -> &str {
        self.grpc_path.path()
    }

    /// The `body` of the rule: empty, `*`, or a field of the request.
    pub fn body(&self) -> &str {
        match &self.body {
            BodyRule::None => "",
            BodyRule::Whole => "*",
            BodyRule::Field(field) => field.name(),
        }
    }

    /// The `response_body` of the rule, empty for the whole response.
    pub fn response_body(&self) -> &str {
        self.response_body.as_ref().map_or("", |field| field.name())
    }

    /// Whether the HTTP response is the bytes of a `google.api.HttpBody`.
    pub(crate) fn answers_http_body(&self) -> bool {
        match &self.response_body {
            Some(field) => field::is_http_body_field(field),
            None => field::is_http_body(&self.method.output()),
        }
    }
}

/// Which services of a descriptor set are served.
#[derive(Clone, Debug)]
pub enum Services {
    /// Every service with a rule.
    All,
    /// These, by full name.
    Only(Vec<String>),
}

impl Services {
    /// These services, by full name such as `library.v1.Library`.
    pub fn only<I: IntoIterator<Item: Into<String>>>(names: I) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }
}

/// Why a descriptor set cannot be served.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The bytes are no `FileDescriptorSet`.
    #[error("the descriptor set cannot be read: {0}")]
    DescriptorSet(String),
    /// The filter names a service that the set does not have.
    #[error("the descriptor set has no service '{0}'")]
    ServiceUnknown(String),
    /// No selected method has a rule: most likely the options were lost on the way.
    #[error("no selected method has a google.api.http rule")]
    NoRules,
    /// A rule is wrong.
    #[error("{method}, '{template}': {reason}")]
    Rule {
        /// The full name of the gRPC method.
        method: String,
        /// The path template as it was written; empty when the rule has none.
        template: String,
        /// What is wrong with it.
        reason: RuleReason,
    },
}

/// What can be wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleReason {
    /// The rule has no `get`, `put`, `post`, `delete`, `patch` or `custom`.
    #[error("the rule has no HTTP method and path")]
    NoPattern,
    /// The `kind` of a custom pattern is no HTTP method.
    #[error("'{0}' is not an HTTP method")]
    HttpMethod(String),
    /// The template does not follow the grammar.
    #[error("{0}")]
    Template(#[from] TemplateError),
    /// A variable names no field.
    #[error("variable '{variable}': {cause}")]
    VariableUnknown {
        /// The variable.
        variable: String,
        /// Why it leads nowhere.
        cause: String,
    },
    /// A variable names a repeated or a map field.
    #[error("variable '{0}' is a repeated field")]
    VariableRepeated(String),
    /// A variable names a message.
    #[error("variable '{0}' is a message")]
    VariableMessage(String),
    /// `body` names no field of the request.
    #[error("body '{0}' is not a field of the request")]
    BodyUnknown(String),
    /// `response_body` names no field of the response.
    #[error("response_body '{0}' is not a field of the response")]
    ResponseBodyUnknown(String),
    /// The method takes a stream of requests, which one HTTP request cannot be.
    #[error("a client-streaming method cannot be bound")]
    ClientStreaming,
    /// An additional binding has additional bindings.
    #[error("additional bindings cannot be nested")]
    NestedBindings,
    /// Another binding answers to the same requests.
    #[error("the same requests are bound to {0}")]
    Duplicate(String),
}

/// Reads the bindings of the selected services, in the order of the descriptor set.
pub(crate) fn read(pool: &DescriptorPool, services: &Services, options: &Options) -> Result<Vec<Binding>, RuleError> {
    if let Services::Only(names) = services
        && let Some(unknown) = names.iter().find(|name| pool.get_service_by_name(name).is_none())
    {
        return Err(RuleError::ServiceUnknown(unknown.clone()));
    }
    let extension = pool
        .get_extension_by_name("google.api.http")
        .ok_or(RuleError::NoRules)?;
    let mut bindings = Vec::new();
    for service in pool.services() {
        if matches!(services, Services::Only(names) if !names.iter().any(|name| name == service.full_name())) {
            continue;
        }
        for method in service.methods() {
            read_method(&method, &extension, options, &mut bindings)?;
        }
    }
    if bindings.is_empty() {
        Err(RuleError::NoRules)
    } else {
        Ok(bindings)
    }
}

fn read_method(
    method: &MethodDescriptor,
    extension: &ExtensionDescriptor,
    options: &Options,
    bindings: &mut Vec<Binding>,
) -> Result<(), RuleError> {
    let method_options = method.options();
    if !method_options.has_extension(extension) {
        return Ok(());
    }
    let rule = method_options.get_extension(extension);
    let Some(rule) = rule.as_message() else { return Ok(()) };
    bindings.push(bind(method, rule, options)?);
    for additional in message_list(rule, "additional_bindings") {
        if !message_list(&additional, "additional_bindings").is_empty() {
            let template = pattern(&additional).map(|(_, template)| template).unwrap_or_default();
            return Err(rule_error(method, &template, RuleReason::NestedBindings));
        }
        bindings.push(bind(method, &additional, options)?);
    }
    Ok(())
}

fn bind(method: &MethodDescriptor, rule: &DynamicMessage, options: &Options) -> Result<Binding, RuleError> {
    let (kind, text) = pattern(rule).ok_or_else(|| rule_error(method, "", RuleReason::NoPattern))?;
    let fail = |reason| rule_error(method, &text, reason);
    let verb = match kind.as_str() {
        "*" => HttpMethod::Any,
        _ => HttpMethod::Only(
            Method::from_bytes(kind.as_bytes()).map_err(|_| fail(RuleReason::HttpMethod(kind.clone())))?,
        ),
    };
    let template = Template::parse(&text).map_err(|cause| fail(cause.into()))?;
    if method.is_client_streaming() {
        return Err(fail(RuleReason::ClientStreaming));
    }
    let (input, output) = (method.input(), method.output());
    let variables = bind_variables(&template, &input).map_err(fail)?;
    let body = match string(rule, "body").as_str() {
        "" => BodyRule::None,
        "*" => BodyRule::Whole,
        name => BodyRule::Field(
            input
                .get_field_by_name(name)
                .ok_or_else(|| fail(RuleReason::BodyUnknown(name.to_owned())))?,
        ),
    };
    let response_body = match string(rule, "response_body").as_str() {
        "" => None,
        name => Some(
            output
                .get_field_by_name(name)
                .ok_or_else(|| fail(RuleReason::ResponseBodyUnknown(name.to_owned())))?,
        ),
    };
    let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Ok(Binding {
        verb,
        template,
        method: method.clone(),
        label: MatchedBinding {
            template: text.as_str().into(),
            grpc_path: grpc_path.as_str().into(),
        },
        grpc_path: grpc_path
            .parse()
            .expect("names of a service and a method are identifiers"),
        body,
        response_body,
        variables,
        header_fields: options
            .headers
            .fields
            .iter()
            .filter_map(|it| Some((it.header.clone(), textual(&input, &it.field)?)))
            .collect(),
        event_id: options
            .streams
            .event_id_field
            .as_deref()
            .and_then(|name| textual(&output, name)),
        resume: options
            .streams
            .resume_field
            .as_deref()
            .and_then(|name| textual(&input, name)),
    })
}

fn bind_variables(template: &Template, input: &MessageDescriptor) -> Result<Vec<BoundVariable>, RuleReason> {
    let bound = template.variables().iter().map(|variable| {
        let name = &variable.field_path;
        let path = FieldPath::resolve(input, name).map_err(|cause| RuleReason::VariableUnknown {
            variable: name.clone(),
            cause: cause.to_string(),
        })?;
        let leaf = path.leaf();
        if leaf.is_list() || leaf.is_map() {
            return Err(RuleReason::VariableRepeated(name.clone()));
        }
        if !field::is_textual(&leaf.kind()) {
            return Err(RuleReason::VariableMessage(name.clone()));
        }
        let last = &template.segments()[variable.range.end - 1];
        Ok(BoundVariable {
            path,
            start: variable.range.start,
            end: (*last != crate::template::Segment::Rest).then_some(variable.range.end),
            multi_segment: template.is_multi_segment(variable),
        })
    });
    bound.collect()
}

/// A field of this name that one text can fill, if the message has one.
fn textual(message: &MessageDescriptor, dotted: &str) -> Option<FieldPath> {
    let path = FieldPath::resolve(message, dotted).ok()?;
    let leaf = path.leaf();
    (!leaf.is_list() && !leaf.is_map() && field::is_textual(&leaf.kind())).then_some(path)
}

/// The HTTP method and the path template of a rule.
fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    for (field, method) in [
        ("get", "GET"),
        ("put", "PUT"),
        ("post", "POST"),
        ("delete", "DELETE"),
        ("patch", "PATCH"),
    ] {
        if rule.has_field_by_name(field) {
            return Some((method.to_owned(), string(rule, field)));
        }
    }
    let custom = rule
        .has_field_by_name("custom")
        .then(|| rule.get_field_by_name("custom"))??;
    let custom = custom.as_message()?;
    Some((string(custom, "kind"), string(custom, "path")))
}

fn string(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn message_list(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let list = message.get_field_by_name(field);
    let list = list.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    list.iter().filter_map(Value::as_message).cloned().collect()
}

pub(crate) fn rule_error(method: &MethodDescriptor, template: &str, reason: RuleReason) -> RuleError {
    RuleError::Rule {
        method: method.full_name().to_owned(),
        template: template.to_owned(),
        reason,
    }
}
