//! Schemas and their migrations: the same files for both engines.

use sqlx::{
    AssertSqlSafe, SqlSafeStr as _,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use crate::Error;

/// The tables of one daemon. Several schemas may share one PostgreSQL database: their tables have different names,
/// and each has its own list of migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `login`
    Accounts,
    /// `login`, where it serves the centre of several regions
    Central,
    /// `dbcache`
    Game,
    /// `billing`
    Billing,
    /// `gm`
    Gm,
}

/// (version, name, text). After the first release, files only get added.
type Files = &'static [(i64, &'static str, &'static str)];

macro_rules! files {
    ($($version:literal $path:literal),* $(,)?) => {
        &[$(($version, $path, include_str!(concat!("../../migrations/", $path, ".sql")))),*]
    };
}

impl Schema {
    fn files(self) -> Files {
        match self {
            Self::Accounts => files![
                1 "accounts/0001_accounts",
                20 "accounts/0020_account_life",
                30 "accounts/0030_regions",
                40 "accounts/0040_closing",
                50 "accounts/0050_revoked",
                70 "store/0070_mark",
            ],
            Self::Central => files![1 "central/0001_central", 70 "store/0070_mark"],
            Self::Game => files![1 "game/0001_game", 70 "store/0070_mark"],
            Self::Billing => {
                files![1 "billing/0001_billing", 60 "billing/0060_session_epochs", 70 "store/0070_mark"]
            }
            Self::Gm => files![1 "gm/0001_gm", 70 "store/0070_mark", 80 "gm/0080_mutes"],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Central => "central",
            Self::Game => "game",
            Self::Billing => "billing",
            Self::Gm => "gm",
        }
    }

    /// Runs the migrations that are missing. The caller makes sure that no other process does so at the same time.
    /// `render` turns the common text into the engine's: only the name of the type for bytes differs.
    pub(super) async fn migrate<C>(self, on: &mut C, render: fn(&str) -> String) -> Result<(), Error>
    where
        C: Migrate,
    {
        let migrations = self
            .files()
            .iter()
            .map(|&(version, name, text)| {
                let text = AssertSqlSafe(render(text)).into_sql_str();
                Migration::new(version, name.into(), MigrationType::Simple, text, false)
            })
            .collect();
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.dangerous_set_table_name(format!("migrations_{}", self.name()));
        // During an upgrade, a replica of this version may start after a later version has added its migrations.
        migrator.set_ignore_missing(true);
        // sqlx would take a lock of the session, which a pooler in transaction mode leaves behind.
        migrator.set_locking(false);
        migrator.run_direct(None, on, false).await.map_err(|error| match error {
            MigrateError::Execute(error) => match Error::from(error) {
                error if error.is_unavailable() => error,
                error => Error::Migrate { schema: self.name(), source: Box::new(error) },
            },
            error => Error::Migrate { schema: self.name(), source: Box::new(error) },
        })
    }
}
