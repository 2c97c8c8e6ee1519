//! A config from its files, its environment and the files that it names: all or nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use secrecy::{ExposeSecret, SecretString};

use super::env::{self, Environment};
use super::error::{ConfigError, Problem, ProblemKind};
use super::fault::Fault;
use super::file::{Dependencies, Files, Now, Opened};
use super::format::{Format, Places};
use super::include;
use super::read;
use super::reattach;
use super::report::{Doc, Origin, Report, unparsed};
use super::source::{text_of, unreadable};
use super::tree::{Merged, Node, Span};
use super::{Address, Config, FileContents, PluginSpec};

/// Loads a [`Config`], and tells what it was loaded from.
///
/// [`Config::from_file`], [`Config::parse`] and [`Config::from_figment`] are enough where only the
/// config matters.
///
/// ```
/// use tower_plugins::config::{Environment, Format, Loader};
///
/// let text = "
/// plugins:
///   search: { transport: http, endpoint: 'http://${SEARCH:-127.0.0.1}:8080' }
/// ";
/// let loaded = Loader::text(text, Format::Yaml).environment(Environment::empty()).load();
/// assert_eq!(loaded.config?.plugins.len(), 1);
/// assert!(loaded.warnings.is_empty());
/// # Ok::<(), tower_plugins::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Loader {
    from: From,
    environment: Option<Environment>,
    now: Now,
}

#[derive(Clone)]
enum From {
    File(PathBuf),
    #[cfg(feature = "watch")]
    Kept(Vec<FileContents>),
    Text(SecretString, Format),
    Figment(Box<Figment>),
}

impl fmt::Debug for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what they hold: some of it is secret.
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            #[cfg(feature = "watch")]
            Self::Kept(files) => f.debug_tuple("Kept").field(files).finish(),
            Self::Text(_, format) => f.debug_tuple("Text").field(format).finish(),
            Self::Figment(_) => f.write_str("Figment"),
        }
    }
}

/// What came of loading a config.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The config, or all that is wrong with it.
    pub config: Result<Config, ConfigError>,
    /// What is allowed and can hardly be meant, such as a timeout for an attempt that is longer than
    /// the call may take.
    pub warnings: Vec<Problem>,
    /// The config files as they were read, the main one first; none for a text or a figment.
    pub files: Vec<FileContents>,
    /// Every file that was read for it, whatever came of it.
    pub dependencies: Dependencies,
}

impl Loader {
    /// Of the file at `path`: JSON, YAML or TOML, by its extension; with the files that it includes.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(From::File(path.into()))
    }

    /// Of what its files, the main one first, held earlier: they are not read again, nor is any other included.
    #[cfg(feature = "watch")]
    pub(crate) fn kept(files: Vec<FileContents>) -> Self {
        Self::new(From::Kept(files))
    }

    /// Of `text`. Files that it names are named by absolute paths.
    pub fn text(text: impl Into<String>, format: Format) -> Self {
        Self::new(From::Text(text.into().into(), format))
    }

    /// Of what the layers of `figment` say together. Variables do not lie over them
    /// (`TOWER_PLUGINS__…`): a program that composes its layers has its own.
    pub fn figment(figment: Figment) -> Self {
        Self::new(From::Figment(Box::new(figment)))
    }

    fn new(from: From) -> Self {
        Self {
            from,
            environment: None,
            now: Now::default(),
        }
    }

    /// Tells by `now` which file is being read.
    #[cfg(feature = "watch")]
    pub(crate) fn tell(mut self, now: Now) -> Self {
        self.now = now;
        self
    }

    /// Takes variables from `environment`, and not from the process.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Loads the config. This blocks while it reads files, each of which is opened once.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let files = Files::told_by(self.now.clone());
        let of_process;
        let environment = match &self.environment {
            Some(environment) => environment,
            None => {
                of_process = Environment::of_process();
                &of_process
            }
        };
        let attempt = |places| match &self.from {
            From::File(path) => load_file(path, None, environment, &files, places),
            #[cfg(feature = "watch")]
            From::Kept(kept) => {
                files.hold(kept);
                let main = kept.first().map_or(Path::new(""), FileContents::path);
                load_file(main, kept.get(1..), environment, &files, places)
            }
            From::Text(text, format) => {
                let texts = [Text {
                    file: None,
                    text: text.expose_secret(),
                    format: *format,
                }];
                load_texts(&texts, None, environment, &files, places, true)
            }
            From::Figment(figment) => load_figment(figment, environment, &files),
        };
        let mut outcome = attempt(Places::Cheap);
        if outcome.misses_places {
            outcome = attempt(Places::Wanted);
        }
        Loaded {
            config: if outcome.problems.is_empty() {
                Ok(outcome.config)
            } else {
                Err(ConfigError::from_problems(outcome.problems))
            },
            warnings: outcome.warnings,
            files: outcome.files,
            dependencies: files.into_dependencies(),
        }
    }
}

#[derive(Default)]
struct Outcome {
    config: Config,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Whether there is something to report of which the place is not known, and could be.
    misses_places: bool,
    files: Vec<FileContents>,
}

impl Outcome {
    fn refused(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy)]
struct Text<'t> {
    file: Option<&'t Path>,
    text: &'t str,
    format: Format,
}

/// The config whose main file is at `path`. It includes `kept`, if that is known already.
fn load_file(
    path: &Path,
    kept: Option<&[FileContents]>,
    environment: &Environment,
    files: &Files,
    places: Places,
) -> Outcome {
    let main = match files.read(path) {
        Ok(main) => main,
        Err(error) => return Outcome::refused(vec![unreadable(path, &error)]),
    };
    let mut read = vec![main.contents.clone()];
    let mut outcome = load_main(&main, kept, environment, files, places, &mut read);
    outcome.files = read;
    outcome
}

fn load_main(
    main: &Opened,
    kept: Option<&[FileContents]>,
    environment: &Environment,
    files: &Files,
    places: Places,
    read: &mut Vec<FileContents>,
) -> Outcome {
    let text = match text(main) {
        Ok(text) => text,
        Err(error) => return Outcome::refused(error.into_problems()),
    };
    let root = match text.format.parse(text.text, places) {
        Ok(root) => root,
        Err(syntax) => {
            return Outcome::refused(vec![unparsed(text.file, text.text, text.format, syntax)]);
        }
    };
    let main = [doc(text, root)];
    let (included, mut problems) = match kept {
        Some(kept) => (
            kept.iter().map(|it| it.path().to_owned()).collect(),
            Vec::new(),
        ),
        None => include::files(&main, environment, files),
    };
    let [Doc { root, .. }] = main;
    let opened: Vec<Opened> = included
        .into_iter()
        .filter_map(|path| {
            files
                .read(&path)
                .map_err(|error| problems.push(unreadable(&path, &error)))
                .ok()
        })
        .collect();
    read.extend(opened.iter().map(|opened| opened.contents.clone()));
    let mut texts = vec![text];
    for opened in &opened {
        match self::text(opened) {
            Ok(text) => texts.push(text),
            Err(error) => problems.extend(error.into_problems()),
        }
    }
    let is_whole = problems.is_empty();
    let mut outcome = load_texts(&texts, Some(root), environment, files, places, is_whole);
    let is_json = text.format == Format::Json && places == Places::Cheap;
    outcome.misses_places |= is_json && !problems.is_empty();
    outcome.problems.extend(problems);
    outcome
}

fn text(opened: &Opened) -> Result<Text<'_>, ConfigError> {
    let path = opened.contents.path();
    let (text, format) = text_of(path, opened.contents.expose())?;
    Ok(Text {
        file: Some(path),
        text,
        format,
    })
}

const fn doc<'t>(text: Text<'t>, root: Node<'t>) -> Doc<'t> {
    let Text { file, text, format } = text;
    Doc {
        origin: Origin::Text { file, text, format },
        root,
    }
}

/// The config that `texts` say together, the main one first, which may have been parsed already. Unless
/// it is whole, texts are missing.
fn load_texts<'t>(
    texts: &[Text<'t>],
    mut main: Option<Node<'t>>,
    environment: &Environment,
    files: &Files,
    places: Places,
    is_whole: bool,
) -> Outcome {
    let (mut roots, mut parsed, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        let parsed_before = main.take().map(Ok);
        match parsed_before.unwrap_or_else(|| text.format.parse(text.text, places)) {
            Ok(root) => {
                roots.push(root);
                parsed.push(*text);
            }
            Err(syntax) => problems.push(unparsed(text.file, text.text, text.format, syntax)),
        }
    }
    if !problems.is_empty() {
        // What else is wrong may follow from what could not be read.
        return Outcome::refused(problems);
    }
    let (variables, misfits) = env::lay_over(&mut roots, environment);
    problems.extend(
        misfits
            .into_iter()
            .map(|misfit| misfit_problem(misfit.variable, misfit.fault)),
    );
    let docs: Vec<_> = parsed
        .into_iter()
        .zip(roots)
        .map(|(text, root)| doc(text, root))
        .collect();
    let cheap = places == Places::Cheap;
    let has_no_places = cheap && texts.iter().any(|text| text.format == Format::Json);
    let mut outcome = read_docs(&docs, environment, files, variables, is_whole);
    outcome.problems.extend(problems);
    // What is wrong with a layer or transport of the program's own is found when it is made.
    let has_own = |plugin: &PluginSpec| {
        let mut endpoints = plugin.upstream.endpoints.iter();
        !plugin.policy.layers.is_empty()
            || endpoints.any(|endpoint| matches!(endpoint.address, Address::Custom { .. }))
    };
    let plugins = &outcome.config;
    let mut plugins = plugins.plugins.values().chain(plugins.disabled.values());
    let reports =
        !(outcome.problems.is_empty() && outcome.warnings.is_empty()) || plugins.any(has_own);
    outcome.misses_places = has_no_places && reports;
    outcome
}

fn misfit_problem(variable: String, fault: Fault) -> Problem {
    Problem {
        variable: Some(variable),
        ..Problem::new(fault.kind, "", fault.message)
    }
}

fn load_figment(figment: &Figment, environment: &Environment, files: &Files) -> Outcome {
    let merged = match Merged::of(figment) {
        Ok(merged) => merged,
        Err(error) => {
            return Outcome::refused(error.into_iter().map(foreign).collect());
        }
    };
    let docs = [Doc {
        origin: Origin::Layers {
            figment,
            tags: merged.tags,
        },
        root: merged.root,
    }];
    read_docs(&docs, environment, files, Vec::new(), true)
}

/// The problem of a provider that is not ours.
fn foreign(error: figment::Error) -> Problem {
    let key = error.path.join(".");
    let problem = Problem::new(ProblemKind::Syntax, key, error.kind.to_string());
    let source = error.metadata.and_then(|metadata| metadata.source);
    match source.as_ref().and_then(figment::Source::file_path) {
        Some(file) => problem.in_file(file),
        None => problem,
    }
}

fn read_docs<'t>(
    docs: &'t [Doc<'t>],
    environment: &'t Environment,
    files: &'t Files,
    variables: Vec<String>,
    is_whole: bool,
) -> Outcome {
    let (attached, misread) = reattach::of_environment(environment);
    let report = Report::new(docs, environment, files, variables);
    let config = read::config(&report, &attached, is_whole);
    let (mut problems, mut warnings) = report.finish();
    problems.extend(misread);
    warnings.extend(reattach::in_vain(&attached, &config));
    Outcome {
        config,
        problems,
        warnings,
        ..Outcome::default()
    }
}

impl Loaded {
    /// Logs the warnings.
    pub(crate) fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!("config: {warning}");
        }
    }
}

/// So that a place that is known is not taken for one that is not.
const _: () = assert!(Span::NONE.variable().is_none());
