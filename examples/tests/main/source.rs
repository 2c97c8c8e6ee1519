//! Finds tests in Rust sources, by their attributes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether `name`, which is `crate::module::test`, is a test that runs; or why not.
pub(crate) fn check(root: &Path, name: &str) -> Result<(), String> {
    let segments: Vec<_> = name.split("::").collect();
    let [package, modules @ .., test] = segments.as_slice() else {
        return Err(format!("`{name}` is not `crate::module::test`"));
    };
    let package_dir = match *package {
        "tower_plugins_examples" => root.join("examples"),
        package => root.join("crates").join(package.replace('_', "-")),
    };
    let (folder, modules) = match modules {
        ["tests", modules @ ..] => ("tests", modules),
        modules => ("src", modules),
    };
    let mut sources = super::files(&package_dir.join(folder), "rs");
    sources.retain(|path| is_at(path.strip_prefix(&package_dir).unwrap_or(path), modules));
    if sources.is_empty() {
        let folder = package_dir.join(folder);
        return Err(format!(
            "`{name}`: no file under {} has these modules",
            folder.display()
        ));
    }
    let is_there = |path: &PathBuf| tests(&fs::read_to_string(path).unwrap()).contains(*test);
    if sources.iter().any(is_there) {
        return Ok(());
    }
    Err(format!(
        "`{name}`: no test of this name that is not ignored in {sources:?}"
    ))
}

/// Whether the path has these modules, in this order.
fn is_at(path: &Path, modules: &[&str]) -> bool {
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    modules
        .iter()
        .filter(|module| **module != "tests")
        .all(|module| parts.any(|part| part.strip_suffix(".rs").unwrap_or(&part) == *module))
}

/// The names of all functions with a `#[test]` or `#[…::test(…)]` attribute and no `#[ignore]`.
///
/// A function in `proptest!` is a test by the same attribute. What a macro names is not seen.
fn tests(source: &str) -> BTreeSet<String> {
    let code = code_only(source);
    let mut found = BTreeSet::new();
    let mut attributes: Vec<&str> = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '#' if rest.starts_with("#[") => bracketed(rest),
            c if is_word(c) => word(rest).len(),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        rest = after.trim_start();
        match token {
            "fn" => {
                let name = word(rest);
                if attributes.iter().any(|a| is_test(a)) && !attributes.iter().any(|a| is_ignore(a))
                {
                    found.insert(name.to_owned());
                }
                attributes.clear();
            }
            "pub" | "(" | "crate" | ")" | "async" => {}
            token if token.starts_with("#[") => attributes.push(token),
            _ => attributes.clear(),
        }
    }
    found.remove("");
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// How long the attribute at the start of `text` is.
fn bracketed(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        if depth == 0 && c == ']' {
            return at + 1;
        }
    }
    text.len()
}

/// The path of an attribute: `tokio::test` in `#[tokio::test(start_paused = true)]`.
fn path(attribute: &str) -> &str {
    let inner = attribute.trim_start_matches("#[").trim_start();
    let end = inner
        .find(|c: char| !is_word(c) && c != ':')
        .unwrap_or(inner.len());
    &inner[..end]
}

fn is_test(attribute: &str) -> bool {
    path(attribute) == "test" || path(attribute).ends_with("::test")
}

fn is_ignore(attribute: &str) -> bool {
    path(attribute) == "ignore"
}

/// The source with every comment as a space and every text and character literal as `""`.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let in_word = code.ends_with(is_word);
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + text_literal(&rest[1..]),
            'r' if !in_word => raw_literal(rest),
            'b' if !in_word && rest.starts_with("br") => match raw_literal(&rest[1..]) {
                0 => 0,
                length => length + 1,
            },
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push_str(if first == '/' { " " } else { "\"\"" });
            rest = &rest[skipped..];
        }
    }
    code
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        let step = match here {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length up to and with the closing quote.
fn text_literal(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Zero if this `r` starts no raw text.
fn raw_literal(text: &str) -> usize {
    let after = &text[1..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let start = 1 + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..]
        .find(&end)
        .map_or(text.len(), |at| start + at + end.len())
}

/// Zero if this quote starts a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((_, _))) => chars
            .find(|(_, c)| *c == '\'')
            .map_or(text.len(), |(at, _)| at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[test]
fn tests_are_told_from_functions() {
    let source = r##"
        #[test]
        fn plain() {}
        #[test] fn one_line() {}
        #[tokio::test(
            flavor = "multi_thread",
        )]
        #[should_panic(expected = "]")]
        // Why it panics.
        pub(crate) async fn attributes_and_a_comment() { let x: &'static str = "{"; }
        proptest! {
            #![proptest_config(config())]
            #[test]
            fn property(x in 0..3) {}
            fn no_property(x in 0..3) {}
        }
        #[cfg(test)]
        mod tests { fn helper() {} }
        #[test]
        struct NotAFunction; fn after_a_struct() {}
        #[test]
        #[ignore = "slow"]
        fn ignored() {}
        // #[test]
        fn commented() {}
        /* /* */ #[test] */ fn in_a_block() {}
        const TEXT: &str = "\" #[test] "; fn after_text() {}
        const RAW: &str = r#"" #[test]"#; fn after_raw() {}
        const QUOTE: char = '"'; fn after_quote() {}
        const ESCAPED: char = '\''; #[test] fn after_escaped() {}
        #[test]
        fn $name() {}
        #[attest]
        fn other_attribute() {}
    "##;
    let expected = [
        "plain",
        "one_line",
        "attributes_and_a_comment",
        "property",
        "after_escaped",
    ];
    assert_eq!(tests(source), expected.map(str::to_owned).into());
}

#[test]
fn a_name_must_lead_to_a_test() {
    let root = super::root();
    let here = "tower_plugins_examples::tests::source::a_name_must_lead_to_a_test";
    assert_eq!(check(&root, here), Ok(()));
    assert_eq!(
        check(&root, &here.replace("tests::source", "tests::main::source")),
        Ok(())
    );
    let wrong = [
        "tower_plugins_examples::tests::source::a_name_that_leads_nowhere",
        "tower_plugins_examples::tests::source::code_only",
        "tower_plugins_examples::tests::markdown::a_name_must_lead_to_a_test",
        "tower_plugins_examples::source::a_name_must_lead_to_a_test",
        "tower_plugins_nothing::a_name_must_lead_to_a_test",
        "a_name_must_lead_to_a_test",
    ];
    for name in wrong {
        assert!(check(&root, name).is_err(), "{name}");
    }
}

#[test]
fn modules_must_be_on_the_path_in_their_order() {
    let path = Path::new("src/node/stack.rs");
    assert!(
        is_at(path, &["node", "stack"]) && is_at(path, &["stack", "tests"]) && is_at(path, &[])
    );
    assert!(!is_at(path, &["stack", "node"]) && !is_at(path, &["node", "stacks"]));
}
