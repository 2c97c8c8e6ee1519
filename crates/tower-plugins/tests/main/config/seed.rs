//! The configs of go-plugins: each loads, or is refused with the edit that makes it load.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tower_plugins::config::{Environment, Loader};

/// What `EXPECTED.md` says of the files: for each what is said of its keys.
fn expected(table: &str) -> BTreeMap<&str, Vec<(String, String)>> {
    let mut files: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for row in table.lines().filter(|row| row.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let &[file, outcome, key, said, edit] = &cells[..] else {
            continue;
        };
        let file = file.trim_matches('`');
        if let Some(like) = key.strip_prefix("as in `") {
            let said = files[like.trim_end_matches('`')].clone();
            files.insert(file, said);
            continue;
        }
        let said_of = files.entry(file).or_default();
        match outcome {
            "loads" => {}
            "refused" => {
                assert!(!edit.is_empty(), "{file}: {key} has no edit");
                let key = if key.starts_with('(') {
                    ""
                } else {
                    key.trim_matches('`')
                };
                said_of.push((key.to_owned(), said.to_owned()));
            }
            other => panic!("{file}: {other}"),
        }
    }
    files
}

fn agree(wanted: &str, said: &str) -> bool {
    match wanted.split_once('…') {
        Some((before, "")) => said.starts_with(before),
        _ => wanted == said,
    }
}

#[test]
fn each_config_of_go_plugins_loads_or_is_refused_with_the_edit_to_make() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/main/samples/seed");
    let page = fs::read_to_string(directory.join("EXPECTED.md")).unwrap();
    let expected = expected(page.split("## What is said of each").nth(1).unwrap());
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "EXPECTED.md" {
            continue;
        }
        seen += 1;
        let loaded = Loader::file(&path).environment(Environment::empty()).load();
        let problems = loaded.config.err();
        let problems = problems.iter().flat_map(|error| error.problems());
        let said: Vec<_> = problems
            .map(|p| (p.key.clone(), p.message.clone()))
            .collect();
        let wanted = expected
            .get(&*name)
            .cloned()
            .unwrap_or_else(|| panic!("{name} is not in EXPECTED.md"));
        for (key, message) in &wanted {
            if !said
                .iter()
                .any(|(of, said)| of == key && agree(message, said))
            {
                wrong.push(format!("{name}: is not said: {key}: {message}"));
            }
        }
        for (key, said) in &said {
            if !wanted
                .iter()
                .any(|(of, wanted)| of == key && agree(wanted, said))
            {
                wrong.push(format!("{name}: is said: {key}: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        seen,
        expected.len(),
        "EXPECTED.md names a file that is not there"
    );
}
