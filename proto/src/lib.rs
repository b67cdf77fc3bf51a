//! The contracts: public API (`fulcrum.v1`), bus and journal formats (`fulcrum.bus.v1`), and what both sides of a wire must agree on.
//!
//! Everything generated stands in [`v1`], [`bus`] and [`google`]; [`DESCRIPTOR_SET`] is the same as data, with the REST bindings.
//! Written by hand are [`codec`] (how large the buffers of a call are), [`decimal`] (canonical decimal text), [`shard`] (which shard an account lives on), [`request_id`] (UUIDv7 and its
//! time) and [`names`] (account ids and symbols): rules of the wire that gateway and engine must not each invent.

pub mod codec;
pub mod decimal;
pub mod names;
pub mod request_id;
pub mod shard;

/// The packages of `fulcrum`, nested as the generated code expects them.
mod fulcrum {
    #[allow(missing_docs, clippy::all, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("fulcrum.v1");
    }
    pub mod bus {
        #[allow(missing_docs, clippy::all, rustdoc::all)]
        pub mod v1 {
            tonic::include_proto!("fulcrum.bus.v1");
        }
    }
}

/// Bus, journal and snapshot formats, package `fulcrum.bus.v1`.
pub use fulcrum::bus::v1 as bus;
/// The public API, package `fulcrum.v1`.
pub use fulcrum::v1;

/// Interface definitions by Google (Apache-2.0).
pub mod google {
    /// Package `google.api`.
    #[allow(missing_docs, clippy::all, rustdoc::all)]
    pub mod api {
        tonic::include_proto!("google.api");
    }
    /// Package `google.rpc`.
    #[allow(missing_docs, clippy::all, rustdoc::all)]
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// All files as an encoded `google.protobuf.FileDescriptorSet`, with options and comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The `ErrorInfo.domain` of every error.
pub const ERROR_DOMAIN: &str = "fulcrum";

impl v1::ErrorReason {
    /// The reason as it stands in `ErrorInfo.reason`: without the enum's prefix.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.as_str_name().trim_start_matches("ERROR_REASON_")
    }
}
