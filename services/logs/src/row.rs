//! Records as rows of the table `log`.

use sqlx::{Connection, SqliteConnection};

use crate::{day::timestamp, record::Record};

const INSERT: &str = "INSERT INTO log \
    (time, daemon, instance, level, target, message, event, account, character, session, attributes) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Writes all records in one transaction.
pub(crate) async fn insert(connection: &mut SqliteConnection, records: &[Record]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for record in records {
        sqlx::query(INSERT)
            .bind(timestamp(record.micros))
            .bind(&record.daemon)
            .bind(&record.instance)
            .bind(&record.level)
            .bind(&record.target)
            .bind(&record.message)
            .bind(&record.event)
            .bind(&record.account)
            .bind(&record.character)
            .bind(&record.session)
            .bind(&record.attributes)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
