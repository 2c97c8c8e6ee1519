//! Environment variables in values: `${NAME}` and `${NAME:-default}`.
//!
//! `$${` is `${` itself, and any other `$` is as it stands. What a variable holds is not looked at
//! again: a `${` in it is text.

use std::borrow::Cow;

use super::env::Environment;
use super::error::ProblemKind;
use super::fault::Fault;

/// `text` with its variables put in, and whether there was one.
pub(super) fn expand<'t>(
    text: &'t str,
    environment: &Environment,
) -> Result<(Cow<'t, str>, bool), Fault> {
    if !text.contains("${") {
        return Ok((text.into(), false));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut from_environment = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let after = &from[2..];
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (variable, after) = after.split_once('}').ok_or_else(|| {
            fault("`${` has no `}` after it: close it, or write `$${` for the text itself".into())
        })?;
        expanded.push_str(&value(variable, environment)?);
        from_environment = true;
        rest = after;
    }
    expanded.push_str(rest);
    Ok((expanded.into(), from_environment))
}

fn fault(message: String) -> Fault {
    Fault::new(ProblemKind::Variable, message)
}

/// What `variable`, which stands between the braces, is.
fn value<'v>(variable: &'v str, environment: &'v Environment) -> Result<Cow<'v, str>, Fault> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    if !is_name(name) {
        return Err(fault(match name.split_once(':') {
            // The default may be a secret.
            Some((before, _)) if is_name(before) => {
                format!("a default is written with `:-`: write `${{{before}:-…}}`")
            }
            _ => "`${` begins no variable: a name is of A-Z a-z 0-9 _, and does not begin with a \
                  digit; write `$${` for the text itself"
                .into(),
        }));
    }
    // As in a shell, a default stands in for a variable that is empty, too.
    match (environment.get(name), default) {
        (Some(Ok(value)), None) => Ok(value.into()),
        (Some(Ok(value)), Some(_)) if !value.is_empty() => Ok(value.into()),
        (Some(Err(())), _) => Err(fault(format!(
            "the environment variable {name} is not UTF-8"
        ))),
        (_, Some(default)) => Ok(default.into()),
        (None, None) => Err(fault(format!(
            "the environment variable {name} is not set: set it, or give a default, \
             `${{{name}:-…}}`"
        ))),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `text` so written that it is taken as it stands.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains("${") {
        text.replace("${", "$${").into()
    } else {
        text.into()
    }
}
