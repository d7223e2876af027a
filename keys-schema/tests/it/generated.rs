//! The checked-in protobuf code is what the generator makes of `proto/*.proto`.

use std::fs;
use std::path::Path;

/// `BLESS=1 cargo test -p keys-schema` writes the generated code instead of comparing it.
#[test]
fn checked_in_protobuf_code_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = crate_dir.join("src/proto").join(GENERATED);
    let generated = generate(&crate_dir.join("proto"));
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&checked_in, generated).expect("the source directory is writable");
        return;
    }
    let current = fs::read_to_string(&checked_in).expect("the generated code is checked in");
    assert!(
        current == generated,
        "src/proto/{GENERATED} is stale: run BLESS=1 cargo test -p keys-schema"
    );
}

const FILES: [&str; 4] = [
    "certificate.proto",
    "envelope.proto",
    "provisioning.proto",
    "websocket.proto",
];
const GENERATED: &str = "blind_relay.v1.rs";

fn generate(proto_dir: &Path) -> String {
    let files = protox::compile(FILES, [proto_dir]).expect("the protobuf files compile");
    let out_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    prost_build::Config::new()
        .bytes(["."])
        // Debug of a message is written by hand, lest one added later prints what it holds. Enums hold nothing.
        .skip_debug(["."])
        .enum_attribute(".", "#[derive(Debug)]")
        .out_dir(out_dir)
        .compile_fds(files)
        .expect("the generator accepts the protobuf files");
    fs::read_to_string(out_dir.join(GENERATED)).expect("the generator writes one file a package")
}
