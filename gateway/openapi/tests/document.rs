//! The document of this project's own API: complete, sound, and in the words of the interface definitions.

use std::collections::BTreeSet;

use openapi::{Info, document};
use serde_json::Value;
use transcode::{Options, Services, Transcoder};

fn ours() -> (Transcoder, Value) {
    let rest = Transcoder::decode(contracts::DESCRIPTOR_SET, Services::All, Options::default()).unwrap();
    let info = Info {
        title: "Test".to_owned(),
        version: "1".to_owned(),
        description: String::new(),
        bearer: true,
    };
    let document = document(rest.bindings(), &info);
    (rest, document)
}

#[test]
fn every_binding_is_an_operation_of_its_own() {
    let (rest, document) = ours();
    let paths = document["paths"].as_object().unwrap();
    let operations: Vec<&Value> = paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .collect();
    assert_eq!(operations.len(), rest.bindings().len());
    let ids: BTreeSet<&str> = operations
        .iter()
        .map(|it| it["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len(), "ids are unique");
    assert!(operations.iter().all(|it| !it["summary"].as_str().unwrap().is_empty()));
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    let (_, document) = ours();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let used: BTreeSet<&str> = text
        .split("\"#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(used, schemas.keys().map(String::as_str).collect());
    assert!(schemas.values().all(|schema| !schema.is_null()));
}

#[test]
fn what_is_in_the_path_is_in_neither_query_nor_body() {
    let (_, document) = ours();
    let open = &document["paths"]["/v1/accounts/{account_id}/trades"]["post"];
    assert_eq!(open["parameters"].as_array().unwrap().len(), 1);
    let parameter = &open["parameters"][0];
    assert_eq!(
        (parameter["name"].as_str(), parameter["in"].as_str()),
        (Some("account_id"), Some("path"))
    );
    let body = &open["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert!(body["accountId"].is_null() && body["leverage"].is_object(), "{body}");
    let side = &body["side"]["$ref"];
    assert_eq!(side, "#/components/schemas/fulcrum.v1.Side");
    assert!(
        body["margin"]["description"]
            .as_str()
            .unwrap()
            .contains("At most one of this and `quantity`")
    );

    let list = &document["paths"]["/v1/accounts/{account_id}/trades"]["get"];
    let names: Vec<&str> = list["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"pageSize") && names.contains(&"status"), "{names:?}");
    assert!(list["requestBody"].is_null());
}

#[test]
fn words_come_from_the_interface_definitions() {
    let (_, document) = ours();
    let open = &document["paths"]["/v1/accounts/{account_id}/trades"]["post"];
    assert_eq!(open["summary"], "Opens a trade at the engine's current quote.");
    assert!(open["description"].as_str().unwrap().contains("Safe to retry"));
    let stream = &document["paths"]["/v1/accounts/{account_id}/events:stream"]["get"]["responses"]["200"]["content"];
    for framing in ["application/x-ndjson", "text/event-stream", "application/json"] {
        assert!(stream[framing].is_object(), "{framing}");
    }
}
