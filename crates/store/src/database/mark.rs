//! The mark of a store: an id that is drawn at its first start and stays with its tables, wherever they are copied.

use shardkeep_types::StoreMark;

use super::{Database, Engine};
use crate::{Error, sql};

impl Database {
    /// What tells this store from every other.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark(&self) -> Result<StoreMark, Error> {
        let schema = self.schema.name();
        // Of replicas that make a store together, the first one's id stays.
        let draw = sql("INSERT INTO store_marks (schema_name, id) VALUES ($1, {random_id}) \
             ON CONFLICT (schema_name) DO NOTHING");
        self.execute(draw.bind(schema)).await?;
        let select = sql("SELECT id FROM store_marks WHERE schema_name = $1").bind(schema);
        let row = self.fetch_optional(select).await?;
        let id = row.ok_or_else(|| Error::Corrupt("the store's mark vanished".to_owned()))?.take()?;
        let shared = matches!(self.engine, Engine::Postgres(_));
        Ok(StoreMark { schema: schema.to_owned(), shared, id })
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use crate::{Database, Schema};

    #[tokio::test]
    async fn replicas_of_one_database_have_one_mark_and_schemas_have_their_own() {
        let server = Postgres::start().await;
        let url = server.url();
        let (one, two) = tokio::join!(Database::open(&url, Schema::Game), Database::open(&url, Schema::Game));
        let (one, two) = (one.unwrap(), two.unwrap());
        let (first, second) = tokio::join!(one.mark(), two.mark());
        let mark = first.unwrap();
        assert!(mark.shared && mark.id.len() == 32, "{mark}");
        assert_eq!(mark, second.unwrap());
        let gm = Database::open(&server.url(), Schema::Gm).await.unwrap().mark().await.unwrap();
        assert_ne!(gm.id, mark.id);
    }

    #[tokio::test]
    async fn a_file_keeps_its_mark_and_another_file_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let database = Database::open(&url("a.db"), Schema::Accounts).await.unwrap();
        let mark = database.mark().await.unwrap();
        assert!(!mark.shared && mark.id.len() == 32, "{mark}");
        database.close().await;
        std::fs::copy(folder.path().join("a.db"), folder.path().join("restored.db")).unwrap();
        for (name, same) in [("a.db", true), ("restored.db", true), ("b.db", false)] {
            let found = Database::open(&url(name), Schema::Accounts).await.unwrap().mark().await.unwrap();
            assert_eq!(found == mark, same, "{name}");
        }
    }
}
