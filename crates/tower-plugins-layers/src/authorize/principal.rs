use std::fmt;
use std::sync::Arc;

/// Who a call comes from, in its request's extensions.
///
/// Cloning it is cheap. Printed, it shows its name and scopes, and no claims.
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    name: Box<str>,
    scopes: Vec<Box<str>>,
    #[cfg(feature = "jwt")]
    claims: serde_json::Map<String, serde_json::Value>,
}

impl Principal {
    /// The one with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            ..Inner::default()
        }))
    }

    /// Grants a scope.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        if !self.has_scope(scope) {
            Arc::make_mut(&mut self.0).scopes.push(scope.into());
        }
        self
    }

    /// Sets what a token claims.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn claims_of(mut self, claims: serde_json::Map<String, serde_json::Value>) -> Self {
        Arc::make_mut(&mut self.0).claims = claims;
        self
    }

    /// Its name: the one under which a key is known, or the subject of a token.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it was granted.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scopes.iter().map(|scope| &**scope)
    }

    /// Whether it was granted `scope`.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|granted| granted == scope)
    }

    /// What its token claims; empty where there was none.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.0.claims
    }
}

impl From<&str> for Principal {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("name", &self.0.name)
            .field("scopes", &self.0.scopes)
            .finish_non_exhaustive()
    }
}
