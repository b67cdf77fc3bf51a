//! The tower service: one HTTP request in, one gRPC call, one HTTP response out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body as _;
use prost_reflect::DynamicMessage;
use tonic::Streaming;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::metadata::MetadataMap;
use tower::{BoxError, Service};

use crate::accept;
use crate::codec::DynamicCodec;
use crate::deadline::{self, Deadline};
use crate::error::{Failure, Refusal};
use crate::json::Json;
use crate::options::Options;
use crate::request;
use crate::response;
use crate::route::{Lookup, Router};
use crate::rule::Binding;
use crate::status::Statuses;
use crate::stream::{Framing, StreamBody};
use crate::timeout;

/// What every request reads and none changes.
pub(crate) struct Shared {
    pub router: Router,
    pub options: Options,
    pub json: Json,
    pub statuses: Statuses,
}

impl Shared {
    pub fn lookup(&self, method: &Method, path: &str) -> Lookup<'_> {
        if let Some(route) = self.router.route(method, path) {
            return Lookup::Bound(route.binding);
        }
        let allowed = self.router.allowed(path);
        if allowed.is_empty() {
            Lookup::Unbound
        } else {
            Lookup::MethodNotAllowed(allowed)
        }
    }
}

/// Answers HTTP requests by calling a gRPC service; made by [`Transcoder::into_service`](crate::Transcoder::into_service).
///
/// It takes any body of `Bytes` and never fails: what goes wrong is an answer. Extensions of the request go along to
/// the gRPC service, and those of its answer come back; a [`MatchedBinding`] is among both. The extensions of an error
/// have its [`tonic::Code`], and the [`Refusal`] where it was made here.
#[derive(Clone)]
pub struct TranscodeService<S> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) grpc: S,
}

/// Which binding a request matched: an extension of the gRPC request and of the HTTP response, for traces and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedBinding {
    /// The path template, a label of bounded cardinality.
    pub template: Arc<str>,
    /// The path of the gRPC method, for example `/library.v1.Library/GetBook`.
    pub grpc_path: Arc<str>,
}

impl<S, R, B> Service<Request<R>> for TranscodeService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Always ready: the gRPC service is awaited where its status can be told.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let (shared, grpc) = (self.shared.clone(), self.grpc.clone());
        Box::pin(async move { Ok(answer(shared, grpc, request).await) })
    }
}

async fn answer<S, R, B>(shared: Arc<Shared>, grpc: S, request: Request<R>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let is_head = request.method() == Method::HEAD;
    let mut matched = None;
    let mut response = match call(&shared, grpc, request, &mut matched).await {
        Ok(response) => response,
        Err(failure) => error_response(&shared, failure),
    };
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    if is_head {
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Body::empty();
    }
    response
}

pub(crate) fn error_response(shared: &Shared, failure: Failure) -> Response<Body> {
    let (status, mut headers, body) = shared.statuses.answer(&failure);
    let mut response = Response::new(response::full(body));
    match failure {
        Failure::Called(status) => {
            response::return_metadata(
                status.metadata().clone(),
                &shared.options.headers.returned,
                &mut headers,
            );
            response.extensions_mut().insert(status.code());
        }
        Failure::Refused(refusal) => {
            response.extensions_mut().insert(refusal.code());
            response.extensions_mut().insert(refusal);
        }
    }
    if status == StatusCode::UNAUTHORIZED
        && let Some(challenge) = &shared.options.headers.challenge
    {
        headers.entry(WWW_AUTHENTICATE).or_insert(challenge.clone());
    }
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn call<S, R, B>(
    shared: &Arc<Shared>,
    grpc: S,
    request: Request<R>,
    matched: &mut Option<MatchedBinding>,
) -> Result<Response<Body>, Failure>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let options = &shared.options;
    let (mut parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if path.len() + query.len() > options.limits.url_bytes_max {
        return Err(Refusal::UrlTooLong {
            bytes_max: options.limits.url_bytes_max,
        }
        .into());
    }
    let Some(route) = shared.router.route(&parts.method, path) else {
        return Err(match shared.lookup(&parts.method, path) {
            Lookup::MethodNotAllowed(allow) => Refusal::MethodNotAllowed {
                method: parts.method.clone(),
                allow,
            },
            Lookup::Unbound | Lookup::Bound(_) => Refusal::PathUnknown,
        }
        .into());
    };
    let binding = route.binding;
    *matched = Some(binding.label.clone());
    let timeout = timeout::read(&parts.headers)?;
    let deadline = timeout.and_then(|timeout| Deadline::after(timeout, options.deadline_grace));
    let framing = framing(binding, &parts.headers, options)?;
    let body = request::read_body(&parts.headers, body, options.limits.body_bytes_max).await?;
    let message = request::message(&route, query, &parts.headers, body, &shared.json, options)?;

    let metadata = request::metadata(&parts.headers, &options.headers);
    let mut extensions = std::mem::take(&mut parts.extensions);
    extensions.insert(binding.label.clone());
    let mut request = tonic::Request::from_parts(metadata, extensions, message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let grpc = Grpc::new(grpc).max_decoding_message_size(options.limits.message_bytes_max);
    match framing {
        None => unary(shared, grpc, binding, request, deadline).await,
        Some(framing) => stream(shared, grpc, route.index, request, framing, deadline).await,
    }
}

/// How the answer is framed; `None` for one message.
fn framing(binding: &Binding, headers: &http::HeaderMap, options: &Options) -> Result<Option<Framing>, Refusal> {
    match (binding.answers_http_body(), binding.method().is_server_streaming()) {
        // What it is only the answer knows, so `Accept` cannot be judged.
        (true, true) => Ok(Some(Framing::Raw)),
        (true, false) => Ok(None),
        (false, true) => Ok(Some(Framing::Json(accept::stream_format(
            headers,
            options.streams.default_format,
        )?))),
        (false, false) => accept::require_json(headers).map(|()| None),
    }
}

async fn unary<S>(
    shared: &Arc<Shared>,
    mut grpc: Grpc<S>,
    binding: &Binding,
    request: tonic::Request<DynamicMessage>,
    deadline: Option<Deadline>,
) -> Result<Response<Body>, Failure>
where
    S: GrpcService<Body>,
    S::ResponseBody: Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    let call = async {
        ready(&mut grpc).await?;
        let codec = DynamicCodec::new(binding.method.output());
        grpc.unary(request, binding.grpc_path.clone(), codec).await
    };
    let (metadata, message, extensions) = deadline::within(deadline.as_ref(), call).await?.into_parts();
    let (media_type, payload) = response::payload(binding, &message, &shared.json)?;
    let mut response = head(shared, metadata, extensions, media_type);
    *response.body_mut() = response::full(payload);
    Ok(response)
}

async fn stream<S>(
    shared: &Arc<Shared>,
    mut grpc: Grpc<S>,
    index: usize,
    request: tonic::Request<DynamicMessage>,
    framing: Framing,
    deadline: Option<Deadline>,
) -> Result<Response<Body>, Failure>
where
    S: GrpcService<Body>,
    S::ResponseBody: Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    let binding = &shared.router.bindings()[index];
    let call = async {
        ready(&mut grpc).await?;
        let codec = DynamicCodec::new(binding.method.output());
        grpc.server_streaming(request, binding.grpc_path.clone(), codec).await
    };
    let (metadata, mut messages, extensions) = deadline::within(deadline.as_ref(), call).await?.into_parts();
    // A body in a media type of its own has to wait for it.
    let wait = (framing != Framing::Raw).then_some(shared.options.streams.first_message_wait);
    let first = deadline::within(deadline.as_ref(), first_message(&mut messages, wait)).await?;
    let media_type = match (framing, &first) {
        (Framing::Json(format), _) => HeaderValue::from_static(format.media_type()),
        (Framing::Raw, Some(first)) => response::http_body(binding, first).0,
        (Framing::Raw, None) => HeaderValue::from_static("application/octet-stream"),
    };
    let mut response = head(shared, metadata, extensions, media_type);
    response
        .headers_mut()
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    // Asks nginx, and what follows its example, to pass each message on at once.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    let body = StreamBody::new(shared.clone(), index, framing, first, messages, deadline);
    *response.body_mut() = Body::new(body);
    Ok(response)
}

/// The first message, or nothing where the stream has ended or is still silent after the wait.
async fn first_message(
    messages: &mut Streaming<DynamicMessage>,
    wait: Option<std::time::Duration>,
) -> Result<Option<DynamicMessage>, tonic::Status> {
    match wait {
        Some(wait) => tokio::time::timeout(wait, messages.message()).await.unwrap_or(Ok(None)),
        None => messages.message().await,
    }
}

async fn ready<S>(grpc: &mut Grpc<S>) -> Result<(), tonic::Status>
where
    S: GrpcService<Body>,
{
    grpc.ready()
        .await
        .map_err(|cause| tonic::Status::from_error(cause.into()))
}

fn head(
    shared: &Shared,
    metadata: MetadataMap,
    extensions: http::Extensions,
    media_type: HeaderValue,
) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    *response.extensions_mut() = extensions;
    response::return_metadata(metadata, &shared.options.headers.returned, response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
