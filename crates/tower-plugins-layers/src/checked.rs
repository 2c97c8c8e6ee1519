//! Policies that serde reads field by field and then looks at as a whole.

/// Says what of a value that was read makes no sense.
pub(crate) trait Check {
    fn check(&self) -> Result<(), &'static str>;
}

/// Makes serde's derive on `$policy`, which must have `serde(remote = "Self")`, refuse what the
/// policy's [`Check`] refuses.
macro_rules! checked {
    ($policy:ty) => {
        impl serde::Serialize for $policy {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // The function that the derive made.
                <$policy>::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $policy {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let policy = <$policy>::deserialize(deserializer)?;
                crate::checked::Check::check(&policy).map_err(serde::de::Error::custom)?;
                Ok(policy)
            }
        }
    };
}

pub(crate) use checked;
