//! The roles of operators and the table of their rights. A role includes the rights of all lower roles.

use std::{fmt, str::FromStr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Viewer,
    Moderator,
    GameMaster,
    Admin,
}

/// The right to see or do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    SeeCluster,
    SeePlayers,
    SeeMap,
    SeeAddresses,
    SeeChat,
    SeeAudit,
    SeeLogs,
    SeeOperators,
    Kick,
    Mute,
    Broadcast,
    Teleport,
    Ban,
    Unban,
    Credit,
    Maintenance,
    Drain,
    ChangeLayout,
    RemoveDaemon,
    ManageOperators,
}

impl Right {
    /// The lowest role that has this right.
    pub(crate) const fn minimum_role(self) -> Role {
        match self {
            Self::SeeCluster | Self::SeePlayers | Self::SeeMap => Role::Viewer,
            Self::SeeChat | Self::SeeAudit | Self::SeeLogs | Self::SeeAddresses => Role::Moderator,
            Self::Kick | Self::Mute | Self::Broadcast => Role::Moderator,
            Self::Teleport | Self::Ban | Self::Unban | Self::Maintenance => Role::GameMaster,
            Self::Credit | Self::Drain | Self::ChangeLayout | Self::RemoveDaemon => Role::Admin,
            Self::SeeOperators | Self::ManageOperators => Role::Admin,
        }
    }
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Viewer, Self::Moderator, Self::GameMaster, Self::Admin];

    pub(crate) fn may(self, right: Right) -> bool {
        self >= right.minimum_role()
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Moderator => "moderator",
            Self::GameMaster => "game-master",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a role; the roles are viewer, moderator, game-master and admin")]
pub(crate) struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_roles_include_lower_ones() {
        assert!(Role::Admin.may(Right::Kick) && Role::Admin.may(Right::ManageOperators));
        assert!(Role::Moderator.may(Right::Kick) && !Role::Moderator.may(Right::Ban));
        assert!(!Role::Viewer.may(Right::Kick) && Role::Viewer.may(Right::SeeMap));
    }

    #[test]
    fn role_round_trips_through_text() {
        assert!(Role::ALL.into_iter().all(|role| role.as_str().parse() == Ok(role)));
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("game-master"));
    }
}
