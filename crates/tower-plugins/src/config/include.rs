//! `include`: more files of one config.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::env::Environment;
use super::error::{Problem, ProblemKind};
use super::fault::Fault;
use super::file::Files;
use super::format::Format;
use super::keys::ROOT;
use super::report::{Doc, Report};

/// The most files of one config.
const MOST: usize = 1_000;

/// The files that the main one includes: in the order in which it names them, those of a pattern or
/// directory by name; each once, itself left out.
pub(super) fn files<'t>(
    main: &'t [Doc<'t>; 1],
    environment: &'t Environment,
    files: &'t Files,
) -> (Vec<PathBuf>, Vec<Problem>) {
    let report = Report::new(main, environment, files, Vec::new());
    let mut paths: Vec<PathBuf> = Vec::new();
    let root = &main[0].root;
    if root.get("include").is_some()
        && let Some(mut table) = report.table(0, &ROOT, String::new(), root.at, root)
    {
        for item in table.list("include").unwrap_or_default() {
            let found = item.given.text().and_then(|written| {
                let path = report.resolve(0, written)?;
                matching(&path, files)
            });
            match found {
                Ok(found) => paths.extend(found),
                Err(fault) => {
                    report.add_given(0, item.given.node.at, item.path, fault, &item.given);
                }
            }
        }
        let main = main[0].origin.file().and_then(identity);
        let mut seen: HashSet<_> = main.into_iter().collect();
        paths.retain(|path| identity(path).is_none_or(|identity| seen.insert(identity)));
        if paths.len() >= MOST {
            let message = format!("includes {} files, at most {MOST}", paths.len());
            table.problem("include", message);
        }
    }
    (paths, report.finish().0)
}

/// What tells a file from another, whatever the path.
fn identity(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

fn matching(path: &Path, files: &Files) -> Result<Vec<PathBuf>, Fault> {
    let fault = |message: String| Fault {
        names_value: true,
        ..Fault::new(ProblemKind::File, message)
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let is_pattern = |text: &str| text.contains(['*', '?', '[']);
    let directory = path.parent().unwrap_or(path);
    if directory.to_str().is_some_and(is_pattern) && !directory.is_dir() {
        return Err(fault(
            "has a pattern in the name of a directory: only the name of a file may be one".into(),
        ));
    }
    let cannot = |path: &Path, error: io::Error| {
        fault(format!(
            "names {}, which cannot be read: {error}",
            path.display()
        ))
    };
    if path.is_dir() {
        files.look_into(path);
        let of_config = |name: &str| Format::of(name).is_some();
        return listed(path, of_config).map_err(|error| cannot(path, error));
    }
    match name {
        Some(name) if is_pattern(name) => {
            let pattern =
                Pattern::new(name).map_err(|error| fault(format!("is no pattern: {error}")))?;
            files.look_into(directory);
            listed(directory, |name| pattern.matches(name))
                .map_err(|error| cannot(directory, error))
        }
        _ => match files.read(path) {
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error) => Err(fault(format!("cannot be read: {error}"))),
        },
    }
}

/// The files of `directory` that `wanted` says, by name. Hidden ones are those of editors.
fn listed(directory: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| !name.starts_with('.') && wanted(name)) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
