//! The checked-in generated code is what the `.proto` files say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Writes the Rust code of every one of our own `.proto` files to `out`.
fn generate(out: &Path) {
    let protos = crate_dir().join("../../proto");
    let descriptors = protox::compile(["tower_plugins/v1/plugin.proto"], [&protos]).unwrap();
    tonic_prost_build::configure()
        // `connect` and `serve` helpers would tie this crate to tonic's transport.
        .build_transport(false)
        // A payload passes through without a copy.
        .bytes(".")
        // Equal messages are equal bytes.
        .btree_map(".")
        .out_dir(out)
        .compile_fds(descriptors)
        .unwrap();
}

fn files(dir: &Path) -> BTreeMap<PathBuf, String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().into(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn generated_code_is_current() {
    let checked_in = crate_dir().join("src/generated");
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        for name in files(&checked_in).into_keys() {
            fs::remove_file(checked_in.join(name)).unwrap();
        }
        for (name, code) in files(fresh.path()) {
            fs::write(checked_in.join(name), code).unwrap();
        }
    }
    let (checked_in, fresh) = (files(&checked_in), files(fresh.path()));
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    let advice = "is not what proto/ says; run: \
                  UPDATE_GENERATED=1 cargo test -p tower-plugins-proto --test main";
    assert_eq!(names(&checked_in), names(&fresh), "src/generated {advice}");
    for (name, code) in &fresh {
        assert!(
            checked_in[name] == *code,
            "src/generated/{} {advice}",
            name.display()
        );
    }
}
