//! The way into the room. The doors may be open before there is a room: then it says so.

use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

use crate::around::Inner;
use crate::failure::Failure;

/// Where the stack ends and the room begins. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Entrance(Arc<OnceLock<Inner>>);

impl Entrance {
    /// Lets calls into the room from now on.
    pub fn open(&self, room: Inner) {
        if self.0.set(room).is_err() {
            tracing::error!("the room was there already");
        }
    }

    /// Passes a call on to the room.
    pub async fn enter(&self, request: Request<Body>) -> Response<Body> {
        match self.0.get() {
            Some(room) => room.pass(request).await,
            None => Status::from(Failure::Opening).into_http(),
        }
    }
}
