//! Compiles the schemas with protox, so that nobody needs `protoc` installed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/common.proto", "proto/ipc.proto", "proto/eventbus.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().bytes([".daemoneye.v1.Record.payload"]).compile_fds(descriptors)?;
    Ok(())
}
