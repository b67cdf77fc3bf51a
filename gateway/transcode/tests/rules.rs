//! A wrong rule is found at start and named; the right ones are all there.

mod common;

use prost_reflect::DescriptorPool;
use transcode::{HttpMethod, Lookup, Options, RuleError, RuleReason, Services, Transcoder};

/// Why a service with this method is refused: the reason, after checking that the method is named.
fn refusal(rpc: &str) -> String {
    let set = common::descriptor_set_of(&format!(
        r#"
        syntax = "proto3";
        package t.v1;
        import "google/api/annotations.proto";
        message In {{ string name = 1; repeated string tags = 2; Part part = 3; map<string, string> labels = 4; repeated Part parts = 5; }}
        message Part {{ string id = 1; }}
        message Out {{ string name = 1; }}
        service S {{ {rpc} }}
        "#
    ));
    match Transcoder::decode(&set, Services::All, Options::default()) {
        Ok(_) => "fine".to_owned(),
        Err(RuleError::Rule { method, reason, .. }) => {
            assert!(method.starts_with("t.v1.S."), "{method}");
            reason.to_string()
        }
        Err(other) => other.to_string(),
    }
}

#[test]
fn each_wrong_rule_is_refused_for_its_reason() {
    let get = |template: &str| {
        format!(r#"rpc M(In) returns (Out) {{ option (google.api.http) = {{ get: "{template}" }}; }}"#)
    };
    for (rpc, want) in [
        (get("/v1/{name}"), "fine"),
        (get("/v1/{part.id}"), "fine"),
        (get("/v1/{nope}"), "variable 'nope': t.v1.In has no field 'nope'"),
        (get("/v1/{part.nope}"), "variable 'part.nope': t.v1.Part has no field 'nope'"),
        (get("/v1/{name.id}"), "variable 'name.id': 'name' is not a singular message, so it has no fields to set"),
        (get("/v1/{parts.id}"), "variable 'parts.id': 'parts' is not a singular message, so it has no fields to set"),
        (get("/v1/{tags}"), "variable 'tags' is a repeated field"),
        (get("/v1/{labels}"), "variable 'labels' is a repeated field"),
        (get("/v1/{part}"), "variable 'part' is a message"),
        (get("v1"), "at byte 0: a template starts with '/'"),
        (get("/v1/{name=**}/x"), "at byte 14: '**' must be the last segment"),
        (get(""), "at byte 0: a template starts with '/'"),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { post: "/v1" body: "nope" }; }"#.into(),
            "body 'nope' is not a field of the request",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { post: "/v1" body: "part.id" }; }"#.into(),
            "body 'part.id' is not a field of the request",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { get: "/v1" response_body: "part" }; }"#.into(),
            "response_body 'part' is not a field of the response",
        ),
        (
            r#"rpc M(stream In) returns (Out) { option (google.api.http) = { post: "/v1" body: "*" }; }"#.into(),
            "a client-streaming method cannot be bound",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { body: "*" }; }"#.into(),
            "the rule has no HTTP method and path",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { custom: { kind: "A B" path: "/v1" } }; }"#.into(),
            "'A B' is not an HTTP method",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { get: "/v1" additional_bindings { get: "/v2" additional_bindings { get: "/v3" } } }; }"#
                .into(),
            "additional bindings cannot be nested",
        ),
        (
            format!(
                r#"{} rpc N(In) returns (Out) {{ option (google.api.http) = {{ get: "/v1/{{part.id}}" }}; }}"#,
                get("/v1/{name}")
            ),
            "the same requests are bound to t.v1.S.M",
        ),
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { get: "/v1/{name=a/*}" additional_bindings { get: "/v1/a/{name}" } }; }"#.into(),
            "the same requests are bound to t.v1.S.M",
        ),
        // The same path with another HTTP method or verb is another route.
        (
            r#"rpc M(In) returns (Out) { option (google.api.http) = { get: "/v1/{name}" additional_bindings { delete: "/v1/{name}" } additional_bindings { get: "/v1/{name}:v" } additional_bindings { get: "/v1/{name=**}" } }; }"#.into(),
            "fine",
        ),
        ("rpc M(In) returns (Out);".into(), "no selected method has a google.api.http rule"),
    ] {
        assert_eq!(refusal(&rpc), want, "{rpc}");
    }
}

#[test]
fn the_error_names_the_method_and_the_template() {
    let set = common::descriptor_set_of(
        r#"
        syntax = "proto3";
        package t.v1;
        import "google/api/annotations.proto";
        message In { string name = 1; }
        service S { rpc M(In) returns (In) { option (google.api.http) = { get: "/v1/{nope}" }; } }
        "#,
    );
    let error = Transcoder::decode(&set, Services::All, Options::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.v1.S.M, '/v1/{nope}': variable 'nope': t.v1.In has no field 'nope'"
    );
    let RuleError::Rule {
        reason: RuleReason::VariableUnknown { variable, .. },
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(variable, "nope");
}

#[test]
fn a_set_that_cannot_be_read_or_lacks_the_service_is_refused() {
    let decode = |set: &[u8], services| Transcoder::decode(set, services, Options::default()).unwrap_err();
    assert!(matches!(decode(b"\xff", Services::All), RuleError::DescriptorSet(_)));
    let library = common::descriptor_set("library.proto");
    let error = decode(&library, Services::only(["library.v1.Librarian"]));
    assert_eq!(
        error.to_string(),
        "the descriptor set has no service 'library.v1.Librarian'"
    );
    let none = Transcoder::new(DescriptorPool::new(), Services::All, Options::default()).unwrap_err();
    assert!(matches!(none, RuleError::NoRules));
}

#[test]
fn bindings_can_be_listed_and_looked_up() {
    let set = common::descriptor_set("library.proto");
    let transcoder = Transcoder::decode(&set, Services::only(["library.v1.Library"]), Options::default()).unwrap();
    let listed: Vec<String> = transcoder
        .bindings()
        .iter()
        .filter(|it| it.method().name().starts_with("GetBook") || it.method().name() == "CreateBook")
        .map(|it| {
            format!(
                "{} {} body '{}' to {}",
                it.http_method(),
                it.template(),
                it.body(),
                it.grpc_path()
            )
        })
        .collect();
    let want = [
        "GET /v1/{name=shelves/*/books/*} body '' to /library.v1.Library/GetBook",
        "GET /v1/books/{isbn} body '' to /library.v1.Library/GetBook",
        "GET /v1/authors/{author.name}/latest body '' to /library.v1.Library/GetBook",
        "POST /v1/{parent=shelves/*}/books body 'book' to /library.v1.Library/CreateBook",
    ];
    assert_eq!(listed, want);
    let Lookup::Bound(binding) = transcoder.lookup(&http::Method::GET, "/v1/search/titles") else {
        panic!()
    };
    assert_eq!(
        (binding.http_method(), binding.response_body()),
        (&HttpMethod::Only(http::Method::GET), "titles")
    );
    let Lookup::MethodNotAllowed(allow) = transcoder.lookup(&http::Method::PATCH, "/v1/shelves/1/books/2") else {
        panic!()
    };
    assert_eq!(
        allow,
        [
            http::Method::GET,
            http::Method::HEAD,
            http::Method::PUT,
            http::Method::DELETE
        ]
    );
    let matches = |line: &str| transcoder.matches(&common::request(line, &[], ""));
    assert!(matches("GET /v1/books/1?x=y") && matches("PATCH /v1/books/1"));
    assert!(!matches("GET /healthz") && !matches("GET /library.v1.Library/GetBook"));
}
