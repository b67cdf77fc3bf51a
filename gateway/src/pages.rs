//! What anybody may read: whether the process answers, and what its REST door offers, for programs and for people.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response};
use http_body_util::Full;
use openapi::Info;
use tonic::body::Body;
use transcode::Transcoder;

/// The page runs its own script and talks to its own server, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = include_str!("pages/docs.html");
const SCRIPT: &str = include_str!("pages/docs.js");
const STYLE: &str = include_str!("pages/docs.css");

/// The pages of one gateway.
#[derive(Clone)]
pub(crate) struct Pages {
    /// The OpenAPI document; nothing when this gateway does not describe itself.
    document: Option<Arc<str>>,
}

impl Pages {
    /// Makes the document, if the gateway is to `describe` itself.
    pub fn new(rest: &Transcoder, describe: bool) -> Self {
        let info = Info {
            title: "Fulcrum".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Leveraged trading over REST. The same calls are served as gRPC and grpc-web on the same port; decimals are \
                          strings, and a mutation that is sent again with its `requestId` gets the first answer again."
                .to_owned(),
            bearer: true,
        };
        let document = describe.then(|| openapi::document(rest.bindings(), &info).to_string().into());
        Self { document }
    }

    /// Whether the process answers. Whether calls would be carried out is another question: health, and readiness elsewhere.
    pub fn alive(method: &Method, path: &str) -> Option<Response<Body>> {
        (reads(method) && path == "/healthz").then(|| answer("application/json", "{\"status\":\"ok\"}"))
    }

    /// The page of a path, if it is one.
    pub fn page(&self, method: &Method, path: &str) -> Option<Response<Body>> {
        if !reads(method) {
            return None;
        }
        let document = self.document.as_ref()?;
        Some(match path {
            "/openapi.json" => answer("application/json", document),
            "/docs" | "/docs/" => answer("text/html; charset=utf-8", HTML),
            "/docs/docs.js" => answer("text/javascript; charset=utf-8", SCRIPT),
            "/docs/docs.css" => answer("text/css; charset=utf-8", STYLE),
            _ => return None,
        })
    }
}

fn reads(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn answer(media_type: &'static str, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::copy_from_slice(text.as_bytes()))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
