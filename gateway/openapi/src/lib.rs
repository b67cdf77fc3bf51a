//! An OpenAPI 3.1 document of a REST door, from the bindings that answer it and the comments of the interface definitions.
//!
//! Made from what is served and not beside it: a method, a field or a word that changes there changes here. Knows nothing of trading.
//!
//! Reading order: [`document`], `operation` (one binding), `schema` (messages), `comment` (where the words come from).

mod comment;
mod operation;
mod schema;

use serde_json::{Map, Value, json};
use transcode::Binding;

/// What the document says besides what the bindings say.
#[derive(Clone, Debug)]
pub struct Info {
    /// Title of the API.
    pub title: String,
    /// Its version.
    pub version: String,
    /// A paragraph about it, in Markdown.
    pub description: String,
    /// Whether calls carry a bearer token (a JWT).
    pub bearer: bool,
}

/// The document. Bindings of the same path are put together; those of any HTTP method have no place in OpenAPI and are left out.
#[must_use]
pub fn document(bindings: &[Binding], info: &Info) -> Value {
    let mut schemas = schema::Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    for binding in bindings {
        let Some((verb, path)) = operation::place(binding) else {
            continue;
        };
        let operation = operation::describe(binding, info, &mut schemas);
        let place = paths.entry(path).or_insert_with(|| json!({}));
        place[verb] = operation;
    }
    let mut components = Map::new();
    if info.bearer {
        let bearer = json!({"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}});
        components.insert("securitySchemes".to_owned(), bearer);
    }
    components.insert("schemas".to_owned(), schemas.finish());
    json!({
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": info.description},
        "tags": operation::tags(bindings),
        "paths": paths,
        "components": components,
    })
}
