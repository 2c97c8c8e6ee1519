//! The cookie by which a plugin knows that a host started it.

use std::ffi::OsStr;

/// A variable, and what it must be, by which a plugin knows that its host started it, and nobody by hand.
///
/// Both sides have it written into them. It is there for people, and no secret: it keeps nobody out.
///
/// ```
/// use tower_plugins_proto::go_plugin::Handshake;
///
/// let handshake = Handshake::new("GREETER_PLUGIN", "hello")?;
/// // The host sets the variable, and the plugin looks at it.
/// assert_eq!((handshake.cookie_key(), handshake.cookie_value()), ("GREETER_PLUGIN", "hello"));
/// assert!(handshake.is_met(Some("hello".as_ref())));
/// assert!(!handshake.is_met(None));
/// # Ok::<(), tower_plugins_proto::go_plugin::CookieError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handshake {
    cookie_key: String,
    cookie_value: String,
}

/// What cannot be a cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// The name is not one that an environment takes.
    #[error(
        "the cookie's key is {0:?}, which is no name of a variable; name one without `=` and NUL, such as GREETER_PLUGIN"
    )]
    Key(String),
    /// The name is one of the protocol's own.
    #[error("the cookie's key is {0}, which the protocol itself uses; choose another")]
    Reserved(String),
    /// The value is empty, or has a NUL in it.
    #[error(
        "the cookie's value is {0:?}; it must not be empty, which would be the same as none, nor have a NUL in it"
    )]
    Value(String),
}

impl Default for Handshake {
    /// `TOWER_PLUGINS_COOKIE`, which both sides have where nobody chose another.
    fn default() -> Self {
        Self {
            cookie_key: "TOWER_PLUGINS_COOKIE".to_owned(),
            cookie_value: "tower-plugins-1".to_owned(),
        }
    }
}

impl Handshake {
    /// The variable `cookie_key` must be `cookie_value`.
    ///
    /// # Errors
    ///
    /// [`CookieError`] if one of them is empty or cannot be in an environment, or if the key is one of [`env::ALL`](super::env::ALL).
    pub fn new(
        cookie_key: impl Into<String>,
        cookie_value: impl Into<String>,
    ) -> Result<Self, CookieError> {
        let (cookie_key, cookie_value) = (cookie_key.into(), cookie_value.into());
        if cookie_key.is_empty() || cookie_key.contains(['=', '\0']) {
            return Err(CookieError::Key(cookie_key));
        }
        if super::env::ALL.contains(&cookie_key.as_str()) {
            return Err(CookieError::Reserved(cookie_key));
        }
        if cookie_value.is_empty() || cookie_value.contains('\0') {
            return Err(CookieError::Value(cookie_value));
        }
        Ok(Self {
            cookie_key,
            cookie_value,
        })
    }

    /// The name of the variable.
    #[must_use]
    pub fn cookie_key(&self) -> &str {
        &self.cookie_key
    }

    /// What it must be.
    #[must_use]
    pub fn cookie_value(&self) -> &str {
        &self.cookie_value
    }

    /// Whether `found`, what the variable is, is what it must be.
    #[must_use]
    pub fn is_met(&self, found: Option<&OsStr>) -> bool {
        found.is_some_and(|found| found == self.cookie_value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_cookie_as_any_other() {
        let default = Handshake::default();
        let made = Handshake::new(default.cookie_key(), default.cookie_value());
        assert_eq!(made, Ok(default));
    }

    #[test]
    fn a_cookie_that_an_environment_cannot_hold_is_refused() {
        for key in ["", "A=B", "A\0"] {
            assert_eq!(
                Handshake::new(key, "v"),
                Err(CookieError::Key(key.to_owned()))
            );
        }
        let reserved = "PLUGIN_MIN_PORT".to_owned();
        assert_eq!(
            Handshake::new("PLUGIN_MIN_PORT", "v"),
            Err(CookieError::Reserved(reserved))
        );
        // Plugins that others wrote have such names.
        assert!(Handshake::new("PLUGIN_MAGIC_COOKIE", "v").is_ok());
        for value in ["", "a\0"] {
            assert_eq!(
                Handshake::new("K", value),
                Err(CookieError::Value(value.to_owned()))
            );
        }
    }
}
