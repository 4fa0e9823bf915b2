//! Compiles the protos with protox, so that no machine needs protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 7] = ["shared", "agent", "enrol", "viewer", "operator", "admin", "replica"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=mainstay");
    let files = FILES.map(|name| format!("mainstay/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // The codec looks a message's shape up by its name.
    config.enable_type_names();
    // The same message has the same bytes wherever and however often it is encoded: a named request is known by them.
    config.btree_map([".mainstay.v1.LabelNodeRequest", ".mainstay.v1.DeclaredRoute", ".mainstay.v1.DeclaredRule"]);
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::codec::Codec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
