//! `Logs.Query`: read-only SQL over chosen days, bounded in time, rows and bytes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use shardkeep_cluster::MESSAGE_LIMIT;
use shardkeep_rpc::logs::{self, logs_server};
use sqlx::{
    AssertSqlSafe, Column, Connection, Executor, Row, SqlSafeStr, SqliteConnection, Statement, TypeInfo,
    ValueRef, sqlite::SqliteRow,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{Archive, Clock, Config, Day, LogsError, error::MAX_DAYS, metrics, sandbox, select};

/// Bytes of values in one reply. The rest of a gRPC message is for its frame.
const REPLY_BYTES: usize = MESSAGE_LIMIT - (MESSAGE_LIMIT >> 3);
/// SQLite instructions between two checks of the time.
const PROGRESS_STEPS: i32 = 10_000;

#[derive(Clone)]
pub struct QueryService {
    archive: Archive,
    clock: Clock,
    rows: u32,
    time: Duration,
    running: Arc<Semaphore>,
}

impl QueryService {
    pub fn new(archive: Archive, config: &Config, clock: Clock) -> Self {
        let running = Arc::new(Semaphore::new(config.queries));
        Self { archive, clock, rows: config.query_rows, time: config.query_time, running }
    }

    pub fn into_server(self) -> logs_server::LogsServer<Self> {
        logs_server::LogsServer::new(self)
    }

    async fn answer(&self, request: &logs::QueryRequest) -> Result<logs::QueryReply, LogsError> {
        let _permit = self.running.try_acquire().map_err(|_| LogsError::Busy)?;
        let days = self.days(&request.days)?;
        let limit = if request.limit == 0 { self.rows } else { request.limit.min(self.rows) };
        let sql = select::wrap(&request.sql, limit.saturating_add(1))?;
        let mut connection = self.archive.read(&days, &request.search).await?;
        let deadline = Instant::now() + self.time;
        let mut handle = connection.lock_handle().await.map_err(LogsError::Store)?;
        handle.set_progress_handler(PROGRESS_STEPS, move || Instant::now() < deadline);
        drop(handle);
        let answer = select_rows(&mut connection, sql, limit as usize).await;
        let _ = connection.close().await;
        answer.map_err(|error| self.map_sql_error(error))
    }

    fn days(&self, requested: &[String]) -> Result<Vec<Day>, LogsError> {
        if requested.len() > MAX_DAYS {
            return Err(LogsError::TooManyDays(requested.len()));
        }
        if requested.is_empty() {
            let today = Day::of((self.clock)());
            return Ok(vec![today.before(1), today]);
        }
        Ok(requested.iter().map(|day| day.parse()).collect::<Result<_, _>>()?)
    }

    /// Errors of the caller's SQL go to the caller.
    fn map_sql_error(&self, error: sqlx::Error) -> LogsError {
        const INTERRUPTED: &str = "9";
        match error {
            sqlx::Error::Database(error) if error.code().as_deref() == Some(INTERRUPTED) => {
                LogsError::QueryTimeout(self.time)
            }
            sqlx::Error::Database(error) => LogsError::Sql(error.message().to_owned()),
            other => LogsError::Store(other),
        }
    }
}

#[tonic::async_trait]
impl logs_server::Logs for QueryService {
    async fn query(
        &self,
        request: Request<logs::QueryRequest>,
    ) -> Result<Response<logs::QueryReply>, Status> {
        let began = Instant::now();
        let answer = self.answer(request.get_ref()).await;
        let outcome = answer.as_ref().err().map_or("ok", LogsError::label);
        metrics::query(outcome, began.elapsed());
        Ok(Response::new(answer?))
    }
}

async fn select_rows(
    connection: &mut SqliteConnection,
    sql: String,
    limit: usize,
) -> Result<logs::QueryReply, sqlx::Error> {
    // The sandbox checks the statement here.
    let statement = (&mut *connection).prepare(AssertSqlSafe(sql).into_sql_str()).await?;
    let mut reply = logs::QueryReply {
        columns: statement.columns().iter().map(|column| column.name().to_owned()).collect(),
        ..Default::default()
    };
    sandbox::allow_index_reads(connection).await?;
    let mut rows = statement.query().fetch(&mut *connection);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let values: Vec<String> = (0..row.len()).map(|at| json(&row, at)).collect::<Result<_, _>>()?;
        bytes += values.iter().map(|value| value.len() + 4).sum::<usize>();
        if reply.rows.len() == limit || bytes > REPLY_BYTES {
            reply.truncated = true;
            break;
        }
        reply.rows.push(logs::Row { values });
    }
    Ok(reply)
}

/// SQLite's types belong to values, not to columns.
fn json(row: &SqliteRow, at: usize) -> Result<String, sqlx::Error> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok("null".into());
    }
    let json = match value.type_info().name() {
        "INTEGER" => serde_json::Value::from(row.try_get_unchecked::<i64, _>(at)?),
        "REAL" => serde_json::Value::from(row.try_get_unchecked::<f64, _>(at)?),
        "BLOB" => serde_json::Value::from(hex::encode(row.try_get_unchecked::<Vec<u8>, _>(at)?)),
        _ => serde_json::Value::from(row.try_get_unchecked::<String, _>(at)?),
    };
    Ok(json.to_string())
}
