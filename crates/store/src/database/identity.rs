//! The identity of a store: a random id that its first start creates, and that stays with copied tables.

use shardkeep_types::StoreIdentity;

use super::handle::Database;
use crate::{Error, sql};

impl Database {
    /// The id that distinguishes this store from every other.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn identity(&self) -> Result<StoreIdentity, Error> {
        let schema = self.schema().name();
        // When replicas create a store at the same time, the id of the first one stays.
        let insert = sql("INSERT INTO store_marks (schema_name, id) VALUES ($1, {random_id}) \
             ON CONFLICT (schema_name) DO NOTHING");
        self.execute(insert.bind(schema)).await?;
        let select = sql("SELECT id FROM store_marks WHERE schema_name = $1").bind(schema);
        let row = self.fetch_optional(select).await?;
        let id = row.ok_or_else(|| Error::Corrupt("the row of store_marks is missing".to_owned()))?.take()?;
        let shared = self.engine_name() == "postgres";
        Ok(StoreIdentity { schema: schema.to_owned(), shared, id })
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use crate::{Database, Schema};

    #[tokio::test]
    async fn identity_is_shared_by_replicas_and_differs_by_schema() {
        let server = Postgres::start().await;
        let url = server.url();
        let (one, two) = tokio::join!(Database::open(&url, Schema::Game), Database::open(&url, Schema::Game));
        let (one, two) = (one.unwrap(), two.unwrap());
        let (first, second) = tokio::join!(one.identity(), two.identity());
        let identity = first.unwrap();
        assert!(identity.shared && identity.id.len() == 32, "{identity}");
        assert_eq!(identity, second.unwrap());
        let gm = Database::open(&server.url(), Schema::Gm).await.unwrap().identity().await.unwrap();
        assert_ne!(gm.id, identity.id);
    }

    #[tokio::test]
    async fn identity_survives_file_copy_and_differs_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let database = Database::open(&url("a.db"), Schema::Accounts).await.unwrap();
        let identity = database.identity().await.unwrap();
        assert!(!identity.shared && identity.id.len() == 32, "{identity}");
        database.close().await;
        std::fs::copy(folder.path().join("a.db"), folder.path().join("restored.db")).unwrap();
        for (name, same) in [("a.db", true), ("restored.db", true), ("b.db", false)] {
            let found = Database::open(&url(name), Schema::Accounts).await.unwrap().identity().await.unwrap();
            assert_eq!(found == identity, same, "{name}");
        }
    }
}
