//! The value types that make a config `Eq` and safe to print.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

/// A finite number that compares exactly, so that a spec can be `Eq`.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Number(f64);

impl Number {
    /// The number, unless it is infinite or not a number.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0, which keeps equal numbers equal in every sense.
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// A constant, which is known to be finite.
    pub(super) const fn finite(value: f64) -> Self {
        assert!(value.is_finite());
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Number {}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file held that a config names. It is never printed, and is wiped when dropped.
///
/// Two are equal when they held the same bytes, whatever the files are called.
#[derive(Clone)]
pub struct FileContents {
    path: PathBuf,
    digest: [u8; 32],
    bytes: Arc<SecretSlice<u8>>,
}

impl FileContents {
    /// What the regular file at `path` holds, at most 10 MiB. This blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no regular file, or is larger.
    pub fn read(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let (bytes, _) = super::file::read(&path)?;
        Ok(Self::new(path, bytes))
    }

    /// `bytes` as what `path` held.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self {
            path: path.into(),
            digest: Sha256::digest(&bytes).into(),
            bytes: Arc::new(bytes.into()),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of what it held.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What it held.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.bytes.expose_secret()
    }
}

impl PartialEq for FileContents {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for FileContents {}

impl Hash for FileContents {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for FileContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileContents").field(&self.path).finish()
    }
}
