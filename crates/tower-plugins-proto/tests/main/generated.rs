//! The checked-in generated code is what the `.proto` files say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A proto, and where its code stands; paths are from the root of the repository.
struct Generated {
    protos: &'static str,
    file: &'static str,
    code: &'static str,
    /// With its description, for reflection and for servers in other languages.
    described: bool,
}

const ALL: [Generated; 5] = [
    Generated {
        protos: "proto",
        file: "tower_plugins/v1/plugin.proto",
        code: "crates/tower-plugins-proto/src/generated",
        described: false,
    },
    Generated {
        protos: "proto",
        file: "go_plugin/plugin.proto",
        code: "crates/tower-plugins-proto/src/go_plugin/generated",
        described: true,
    },
    Generated {
        protos: "examples/proto",
        file: "calculator.proto",
        code: "examples/generated",
        described: true,
    },
    Generated {
        protos: "examples/proto",
        file: "word_count.proto",
        code: "examples/generated/word_count",
        described: false,
    },
    Generated {
        protos: "crates/tower-plugins-interop/proto",
        file: "peer.proto",
        code: "crates/tower-plugins-interop/src/generated",
        described: true,
    },
];

/// Writes the Rust code of `what` to `out`.
fn generate(what: &Generated, out: &Path) {
    let protos = root().join(what.protos);
    let descriptors = protox::compile([what.file], [&protos]).unwrap();
    if what.described {
        let name = Path::new(what.file).with_extension("binpb");
        let name = name.file_name().unwrap();
        fs::write(out.join(name), descriptors.encode_to_vec()).unwrap();
    }
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

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn generated_code_is_current() {
    for what in ALL {
        let checked_in = root().join(what.code);
        let fresh = tempfile::tempdir().unwrap();
        generate(&what, fresh.path());
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            for name in files(&checked_in).into_keys() {
                fs::remove_file(checked_in.join(name)).unwrap();
            }
            for (name, code) in files(fresh.path()) {
                fs::write(checked_in.join(name), code).unwrap();
            }
        }
        let (checked_in, fresh) = (files(&checked_in), files(fresh.path()));
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        let code = what.code;
        let advice = "is not what the proto says; run: \
                      UPDATE_GENERATED=1 cargo test -p tower-plugins-proto --test main";
        assert_eq!(names(&checked_in), names(&fresh), "{code} {advice}");
        for (name, bytes) in &fresh {
            let name_shown = name.display();
            assert!(checked_in[name] == *bytes, "{code}/{name_shown} {advice}");
        }
    }
}
