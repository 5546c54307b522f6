//! Compiles the schemas with protox, so that nobody needs `protoc` installed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/common.proto", "proto/ipc.proto", "proto/eventbus.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes([".daemoneye.v1.Record.payload"]);
    // A word where every process of other systems has nothing.
    config.boxed(".daemoneye.v1.ProcessRecord.windows");
    config.compile_fds(descriptors)?;
    Ok(())
}
