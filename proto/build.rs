//! Compiles the interface definitions: Rust types and one descriptor set that keeps options and comments.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "fulcrum/v1/balance_service.proto",
    "fulcrum/v1/common.proto",
    "fulcrum/v1/error.proto",
    "fulcrum/v1/house_service.proto",
    "fulcrum/v1/market_service.proto",
    "fulcrum/v1/operation_service.proto",
    "fulcrum/v1/trade_service.proto",
    "fulcrum/v1/usage_service.proto",
    "fulcrum/v1/wallet_service.proto",
    "fulcrum/bus/v1/envelope.proto",
    "fulcrum/bus/v1/journal.proto",
    "fulcrum/bus/v1/price.proto",
    "fulcrum/bus/v1/snapshot.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=fulcrum");
    println!("cargo:rerun-if-changed=google");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    // The compiler's own encoding keeps `google.api.http`, which prost's types would drop.
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let mut set = compiler.file_descriptor_set();
    // rustdoc would try to compile and to resolve what stands in upstream comments.
    for file in &mut set.file {
        if file.name().starts_with("google/") {
            file.source_code_info = None;
        }
    }
    let _ = set.encoded_len();
    let mut prost = prost_config();
    prost.out_dir(&out);
    tonic_prost_build::configure()
        .bytes(".fulcrum.bus.v1")
        .codec_path("crate::codec::Small")
        .compile_fds_with_config(set, prost)?;
    Ok(())
}

fn prost_config() -> tonic_prost_build::Config {
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config
}
