//! The environment: what `${NAME}` stands for, and variables that lie over the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::error::ProblemKind;
use super::expand::expand;
use super::fault::Fault;
use super::nearest::nearest;
use super::tree::{Entry, Node, Span, Value};

/// The variables that a config is read with: for `${NAME}` in its values, and, those that begin with
/// `TOWER_PLUGINS__`, in the place of what the file says. `TOWER_PLUGINS_REATTACH` says where plugins [run already](super::Reattach).
///
/// ```
/// use tower_plugins::config::{Environment, Format, Loader};
///
/// let text = "
/// plugins:
///   - { name: search-eu, transport: http, endpoint: '${SEARCH_URL}', retry: { max_retries: 1 } }
/// ";
/// let environment = Environment::from_iter([
///     ("SEARCH_URL", "http://10.0.0.1:8080"),
///     ("TOWER_PLUGINS__PLUGINS__SEARCH_EU__RETRY__MAX_RETRIES", "5"),
/// ]);
/// let config = Loader::text(text, Format::Yaml).environment(environment).load().config?;
/// let retry = config.plugins["search-eu"].policy.retry.as_ref().unwrap();
/// assert_eq!(retry.max_retries, 5);
/// # Ok::<(), tower_plugins::config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Result<String, ()>>);

/// What a variable begins with that lies over the file.
const PREFIX: &str = "TOWER_PLUGINS__";

impl Environment {
    /// No variable at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// The variables of this process, as they are now.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |name: std::ffi::OsString| name.into_string();
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((text(name).ok()?, text(value).map_err(drop))))
                .collect(),
        )
    }

    /// What the variable holds; an error if that is no UTF-8.
    pub(super) fn get(&self, name: &str) -> Option<Result<&str, ()>> {
        match self.0.get(name)? {
            Ok(value) => Some(Ok(value)),
            Err(()) => Some(Err(())),
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self(variables.map(|(k, v)| (k.into(), Ok(v.into()))).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the values: some are secrets.
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A variable that could not be laid over the config.
pub(super) struct Misfit {
    pub(super) variable: String,
    pub(super) fault: Fault,
}

/// Lays the variables that begin with `TOWER_PLUGINS__` over `roots`, the tables of the config's
/// files, the main one first. Returns their names by number (see [`Span::of_variable`]) and those
/// that fit nowhere.
pub(super) fn lay_over(
    roots: &mut [Node<'_>],
    environment: &Environment,
) -> (Vec<String>, Vec<Misfit>) {
    let (mut variables, mut misfits) = (Vec::new(), Vec::new());
    let variables_over = environment.0.iter();
    let over: Vec<_> = variables_over
        .filter_map(|(variable, value)| Some((variable, variable.strip_prefix(PREFIX)?, value)))
        .collect();
    let names = if over.is_empty() {
        Vec::new()
    } else {
        named(roots, environment)
    };
    for (variable, path, value) in over {
        let laid = value
            .as_ref()
            .map_err(|()| Fault::new(ProblemKind::Variable, "is not UTF-8"))
            .and_then(|value| {
                let at = u32::try_from(variables.len()).map_or(Span::NONE, Span::of_variable);
                lay(
                    roots,
                    &names,
                    path,
                    &Node::new(Value::Text(value.clone().into()), at),
                )
            });
        match laid {
            Ok(()) => variables.push(variable.clone()),
            Err(fault) => misfits.push(Misfit {
                variable: variable.clone(),
                fault,
            }),
        }
    }
    (variables, misfits)
}

fn lay<'t>(
    roots: &mut [Node<'t>],
    names: &[Named],
    path: &str,
    value: &Node<'t>,
) -> Result<(), Fault> {
    if let Some(rest) = path.strip_prefix("PLUGINS__") {
        let (root, place, keys) = find_plugin(names, rest)?;
        if keys.len() == 1 && keys[0] == "name" {
            let message = "a variable gives no plugin another name: write it into the file";
            return Err(Fault::new(ProblemKind::Variable, message));
        }
        let plugins = roots
            .get_mut(root)
            .and_then(|root| entry_mut(root, "plugins"));
        let plugin = match plugins.map(|plugins| &mut plugins.value) {
            Some(Value::List(plugins)) => plugins.get_mut(place),
            Some(Value::Table(plugins)) => plugins.get_mut(place).map(|entry| &mut entry.node),
            _ => None,
        };
        return match plugin {
            Some(plugin) => set(plugin, &keys, value),
            None => Ok(()),
        };
    }
    let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
    let first = keys.first().map_or("", String::as_str);
    if first == "include" {
        let message = "files are included by the file alone: write it there";
        return Err(Fault::new(ProblemKind::Variable, message));
    }
    let root = roots.iter().position(|root| root.get(first).is_some());
    match roots.get_mut(root.unwrap_or(0)) {
        Some(root) => set(root, &keys, value),
        None => Ok(()),
    }
}

fn entry_mut<'n, 't>(node: &'n mut Node<'t>, key: &str) -> Option<&'n mut Node<'t>> {
    match &mut node.value {
        Value::Table(entries) => entries
            .iter_mut()
            .find(|entry| entry.key == key)
            .map(|entry| &mut entry.node),
        _ => None,
    }
}

/// A plugin of the files.
struct Named {
    root: usize,
    place: usize,
    name: String,
    /// How its name is spelled in a variable's.
    as_variable: String,
}

/// The plugins of `roots`.
fn named(roots: &[Node<'_>], environment: &Environment) -> Vec<Named> {
    let roots = roots.iter().enumerate();
    roots
        .flat_map(|(root, node)| {
            plugin_names(node, environment).map(move |(place, name)| Named {
                root,
                place,
                as_variable: as_variable(&name),
                name,
            })
        })
        .collect()
}

/// The plugin that `rest` begins with: in which root, at which place, and the keys that follow.
fn find_plugin(names: &[Named], rest: &str) -> Result<(usize, usize, Vec<String>), Fault> {
    let fault = |message| Fault::new(ProblemKind::Variable, message);
    let keys_of = |named: &Named| {
        let rest = rest.strip_prefix(&*named.as_variable)?.strip_prefix("__")?;
        Some(rest.split("__").map(str::to_lowercase).collect())
    };
    let mut found: Vec<(&Named, Vec<String>)> = names
        .iter()
        .filter_map(|named| Some((named, keys_of(named)?)))
        .collect();
    match found.len() {
        1 => {
            let (named, keys) = found.remove(0);
            Ok((named.root, named.place, keys))
        }
        0 if names.iter().any(|named| named.as_variable == rest) => Err(fault(format!(
            "names a plugin and none of its keys: add one, as in {rest}__ENABLED"
        ))),
        0 => {
            let asked = rest.split("__").next().unwrap_or(rest);
            let near = nearest(asked, names.iter().map(|named| named.as_variable.as_str()));
            Err(fault(match near {
                Some(near) => format!("no plugin is named like {asked:?}, did you mean {near:?}?"),
                None => format!(
                    "no plugin is named like {asked:?}: a variable changes plugins that the file has"
                ),
            }))
        }
        _ => {
            let names: Vec<_> = found.iter().map(|(named, _)| named.name.as_str()).collect();
            Err(fault(format!(
                "may be about any of the plugins {}: rename all but one, or write it into the file",
                names.join(", ")
            )))
        }
    }
}

/// The plugins of a root: place and name.
fn plugin_names<'n>(
    root: &'n Node<'_>,
    environment: &'n Environment,
) -> impl Iterator<Item = (usize, String)> {
    let names: Vec<Option<String>> = match root.get("plugins").map(|plugins| &plugins.value) {
        Some(Value::List(plugins)) => plugins
            .iter()
            .map(|plugin| match &plugin.get("name")?.value {
                Value::Text(name) => {
                    let (name, _) = expand(name, environment).ok()?;
                    Some(name.into_owned())
                }
                _ => None,
            })
            .collect(),
        Some(Value::Table(plugins)) => plugins
            .iter()
            .map(|entry| Some(entry.key.clone().into_owned()))
            .collect(),
        _ => Vec::new(),
    };
    let names = names.into_iter().enumerate();
    names.filter_map(|(place, name)| Some((place, name?)))
}

/// How a name is spelled in a variable's.
fn as_variable(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        })
        .collect()
}

/// Sets what `keys` lead to in `node`, and makes the tables that are not there.
fn set<'t>(node: &mut Node<'t>, keys: &[String], value: &Node<'t>) -> Result<(), Fault> {
    let Some((key, keys)) = keys.split_first() else {
        *node = value.clone();
        return Ok(());
    };
    let Value::Table(entries) = &mut node.value else {
        return Err(Fault::new(
            ProblemKind::Variable,
            format!("there is no table that could hold {key:?}"),
        ));
    };
    let known = entries
        .iter()
        .position(|entry| as_variable(&entry.key).eq_ignore_ascii_case(key));
    let place = known.unwrap_or_else(|| {
        let key = Cow::Owned(key.clone());
        let node = Node::new(Value::Table(Vec::new()), value.at);
        entries.push(Entry {
            key,
            at: value.at,
            node,
        });
        entries.len() - 1
    });
    match entries.get_mut(place) {
        Some(entry) => set(&mut entry.node, keys, value),
        None => Ok(()),
    }
}
