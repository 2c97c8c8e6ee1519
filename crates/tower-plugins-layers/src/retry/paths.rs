/// Paths, or gRPC methods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths(Box<[PathPattern]>);

impl Paths {
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(path))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<P: AsRef<str>> FromIterator<P> for Paths {
    fn from_iter<I: IntoIterator<Item = P>>(paths: I) -> Self {
        paths
            .into_iter()
            .map(|path| PathPattern::new(path.as_ref()))
            .collect::<Vec<_>>()
            .into()
    }
}

impl From<Vec<PathPattern>> for Paths {
    fn from(patterns: Vec<PathPattern>) -> Self {
        Self(patterns.into())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Paths {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let star = |pattern: &PathPattern| if pattern.prefix { "*" } else { "" };
        serializer.collect_seq(
            self.0
                .iter()
                .map(|pattern| format!("/{}{}", pattern.text, star(pattern))),
        )
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Paths {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let paths = <Vec<String> as serde::Deserialize>::deserialize(deserializer)?;
        Ok(paths.into_iter().collect())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: Box<str>,
    prefix: bool,
}

impl PathPattern {
    fn new(pattern: &str) -> Self {
        let text = without_slash(pattern);
        let prefix = text.strip_suffix('*');
        Self {
            text: prefix.unwrap_or(text).into(),
            prefix: prefix.is_some(),
        }
    }

    fn matches(&self, path: &str) -> bool {
        let path = without_slash(path);
        if self.prefix {
            path.starts_with(&*self.text)
        } else {
            path == &*self.text
        }
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}
