//! The picture of the folders in docs/architecture.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files and folders that a picture names, each with the folder it is drawn in.
///
/// A line is a path and what it is for; two blanks more than the line above put it inside.
fn entries(picture: &str) -> Vec<(PathBuf, String)> {
    let mut parents: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in picture.lines() {
        let name = line.split_whitespace().next().unwrap();
        let depth = (line.len() - line.trim_start().len()) / 2;
        parents.truncate(depth);
        found.push((parents.iter().collect(), name.to_owned()));
        parents.push(name);
    }
    found
}

/// What is wrong with the picture, of the folders below `root`.
fn complaints(picture: &str, root: &Path) -> Vec<String> {
    let entries = entries(picture);
    let mut complaints = Vec::new();
    for (parent, name) in &entries {
        let path = parent.join(name);
        let there = match name.strip_suffix('/') {
            Some(_) => root.join(&path).is_dir(),
            None => root.join(&path).is_file(),
        };
        if !there {
            complaints.push(format!("it shows {}, which is not there", path.display()));
        }
    }
    // A folder that is shown with something in it is shown with all that is in it.
    let drawn: BTreeSet<_> = entries.iter().map(|(parent, _)| parent).collect();
    for parent in drawn.into_iter().filter(|parent| **parent != Path::new("")) {
        for entry in fs::read_dir(root.join(parent)).into_iter().flatten() {
            let entry = entry.unwrap();
            let mut name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                name.push('/');
            }
            if !entries.contains(&(parent.clone(), name.clone())) {
                complaints.push(format!("it lacks {}", parent.join(name).display()));
            }
        }
    }
    complaints
}

#[test]
fn the_picture_of_the_folders_is_what_is_there() {
    let root = super::root();
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let picture = page
        .split("```")
        .map(|block| block.trim_start_matches("text\n"))
        .find(|block| block.starts_with("crates/"))
        .unwrap();
    assert!(picture.lines().count() > 40);
    super::assert_none(&complaints(picture, &root));
}

#[test]
fn a_picture_that_is_wrong_is_found_out() {
    let here = super::root().join("examples/tests");
    let right = "main/  folder\n  main.rs  a file\n  markdown.rs\n  source.rs\n  tree.rs\n";
    assert_eq!(complaints(right, &here), [""; 0]);
    let wrong = right
        .replace("source.rs", "sauce.rs")
        .replace("tree.rs", "tree.rs/");
    let found = complaints(&wrong, &here);
    assert_eq!(found.len(), 4, "{found:?}");
}
