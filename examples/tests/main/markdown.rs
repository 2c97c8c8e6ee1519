//! The little of Markdown that the checks read: tables, code spans, links, headings.

/// The lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A table row's cells; `None` if the line is no row. `\|` is no border.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells = inner.replace("\\|", "\u{0}");
    Some(
        cells
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect(),
    )
}

/// What the tables' columns headed `test` or `tests` say, row by row; a row that is too short says "".
pub(crate) fn test_cells(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // None: outside a table. Some(None): in one without such a column.
    let mut column: Option<Option<usize>> = None;
    for line in prose(text) {
        let row = cells(line);
        match (&row, column) {
            (None, _) => column = None,
            (Some(header), None) => {
                let is_test =
                    |cell: &String| matches!(cell.to_lowercase().as_str(), "test" | "tests");
                column = Some(header.iter().position(is_test));
            }
            (Some(row), Some(Some(index))) => {
                let is_rule = row
                    .iter()
                    .all(|cell| cell.chars().all(|c| matches!(c, '-' | ':')));
                if !is_rule {
                    found.push(row.get(index).cloned().unwrap_or_default());
                }
            }
            (Some(_), Some(None)) => {}
        }
    }
    found
}

/// What stands between pairs of backticks.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The names after `--example` and in `examples/NAME.rs`, in fenced blocks too.
pub(crate) fn examples(text: &str) -> impl Iterator<Item = &str> {
    let name = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .unwrap_or(text.len())
    };
    let by_command = text
        .split("--example ")
        .skip(1)
        .map(move |rest| &rest[..name(rest)]);
    let by_file = text.split("examples/").skip(1).filter_map(move |rest| {
        let (file, after) = rest.split_at(name(rest));
        after.starts_with(".rs").then_some(file)
    });
    by_command.chain(by_file)
}

/// The targets of `[text](target)` outside code.
pub(crate) fn links(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| {
            let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            let targets = outside_code.split("](").skip(1);
            targets
                .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The anchors that a forge makes of the headings.
pub(crate) fn anchors(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
}

#[test]
fn a_test_column_is_read_row_by_row() {
    let text = "\
| guarantee | test |
| --- | :-: |
| a \\| b | `x::a`, `x::b` |
| c | none yet |
| d |

| guarantee | why |
| --- | --- |
| e | `x::c` |

```text
| test |
| --- |
| f |
```
";
    assert_eq!(test_cells(text), ["`x::a`, `x::b`", "none yet", ""]);
    assert_eq!(code_spans("`x::a`, `x::b`"), ["x::a", "x::b"]);
}

#[test]
fn a_link_in_code_is_no_link() {
    let text = "[a](a.md) and `[b](b.md)` and [`c`](c.md#d)\n```\n[e](e.md)\n```\n";
    assert_eq!(links(text), ["a.md", "c.md#d"]);
}

#[test]
fn an_anchor_is_the_heading_without_its_marks() {
    let text = "# The `Plugin` type\n```sh\n# a comment\n```\n## What's new, 2.0\n";
    assert_eq!(
        anchors(text).collect::<Vec<_>>(),
        ["the-plugin-type", "whats-new-20"]
    );
}

#[test]
fn an_example_is_named_by_its_command_or_its_file() {
    let text =
        "cargo run --example quickstart\n[axum](../examples/axum_app.rs), examples/README.md";
    assert_eq!(
        examples(text).collect::<Vec<_>>(),
        ["quickstart", "axum_app"]
    );
}
