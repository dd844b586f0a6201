//! Versions that decide who may act: always compared, never guessed.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! version {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

version! {
    /// Version of an ownership: of an avatar by a zone, of a sector, of a session by a gateway. The higher wins.
    Epoch
}
version! {
    /// Version of a world's leadership, from the leadership row. Commands of a lower term are refused.
    Term
}
version! {
    /// Version of an account's login: raised by each login, ban and "log out everywhere".
    Generation
}
