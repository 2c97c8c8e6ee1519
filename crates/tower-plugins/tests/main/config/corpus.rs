//! Every text that fuzzing found worth keeping, through the checks of the fuzz targets.

use std::fs;
use std::path::Path;

use tower_plugins::config::Format;

#[path = "../../../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a crate of its own, too")]
mod checks;

/// Runs `check` on the corpus of the fuzz target `target`, and tells which file fails.
fn check_all(target: &str, check: fn(&str)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let folder = folder.join(target);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("no corpus at {}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file in {}", folder.display());
    let mut failed = Vec::new();
    for path in paths {
        // As in the targets: what is no text cannot be asked about.
        let Ok(text) = String::from_utf8(fs::read(&path).unwrap()) else {
            continue;
        };
        if std::panic::catch_unwind(|| check(&text)).is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "see above for what fails: {failed:#?}");
}

#[test]
fn the_corpus_of_yaml_holds() {
    check_all("yaml", |text| checks::config(text, Format::Yaml));
}

#[test]
fn the_corpus_of_json_holds() {
    check_all("json", |text| checks::config(text, Format::Json));
}

#[test]
fn the_corpus_of_toml_holds() {
    check_all("toml", |text| checks::config(text, Format::Toml));
}

#[test]
fn the_corpus_of_variables_holds() {
    check_all("expand", checks::expansion);
}
