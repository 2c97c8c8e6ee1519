//! What the documentation names exists: tests, examples and files.
//!
//! In a Markdown table with a column headed `test`, each row names the tests that hold its promise, in
//! backticks, as `crate::module::name`; or it says `none yet`. After the crate's name, a first segment
//! `tests` says that the test lies under the crate's `tests/`, otherwise it lies under `src/`. The
//! other modules must be on the file's path, in their order; an inline `tests` module may be named or
//! left out, and so may `main`, the directory of an integration test.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod markdown;
mod source;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tower_plugins::config::{Config, Format};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Every file below `dir` that ends in `.extension`; none if there is no such directory.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found
}

/// The pages under docs/ and those at the top, each with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut pages = files(&root.join("docs"), "md");
    pages.extend(
        fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    pages.retain(|path| path.extension().is_some_and(|is| is == "md"));
    pages
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_test_named_in_a_docs_table_exists_and_is_a_test() {
    let mut complaints = Vec::new();
    for (page, text) in pages() {
        for cell in markdown::test_cells(&text) {
            let names = markdown::code_spans(&cell);
            if names.is_empty() && cell != "none yet" {
                complaints.push(format!(
                    "{}: the test column says {cell:?}: name a test in backticks, or write: none yet",
                    page.display()
                ));
            }
            let wrong = names
                .iter()
                .filter_map(|name| source::check(&root(), name).err());
            complaints.extend(wrong.map(|why| format!("{}: {why}", page.display())));
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_example_is_documented() {
    let text: String = pages().into_iter().map(|(_, text)| text + "\n").collect();
    let named: BTreeSet<_> = markdown::examples(&text).collect();
    let complaints: Vec<_> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|is| is == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib" && !named.contains(name.as_str()))
        .map(|name| {
            format!("examples/{name}.rs: say in README.md or docs/ what it shows: `cargo run --example {name}`")
        })
        .collect();
    assert_none(&complaints);
}

#[test]
fn every_config_in_the_docs_is_accepted() {
    let formats = [
        ("yaml", Format::Yaml),
        ("json", Format::Json),
        ("toml", Format::Toml),
    ];
    let mut complaints = Vec::new();
    let mut samples = 0;
    for (page, text) in pages() {
        for block in text.split("\n```").skip(1) {
            let Some((language, sample)) = block.split_once('\n') else {
                continue;
            };
            for (_, format) in formats.iter().filter(|(name, _)| *name == language) {
                samples += 1;
                if let Err(error) = Config::parse(sample, *format) {
                    complaints.push(format!("{}: {error}\n{sample}", page.display()));
                }
            }
        }
    }
    assert_none(&complaints);
    assert!(samples > 3);
}

#[test]
fn every_link_inside_the_repository_leads_somewhere() {
    let mut complaints = Vec::new();
    for (page, text) in pages() {
        for link in markdown::links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let leads = target.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| {
                        markdown::anchors(&text).any(|anchor| anchor == heading)
                    }));
            if !leads {
                complaints.push(format!(
                    "{}: the link to {link} leads nowhere",
                    page.display()
                ));
            }
        }
    }
    assert_none(&complaints);
}
