//! Statements written once for both engines. A marker in braces stands for what the engines spell differently. Many
//! rows are one argument, so that a statement over a thousand rows stays one statement.
//!
//! | marker | PostgreSQL | SQLite |
//! | --- | --- | --- |
//! | `{now_ms}` | the server's clock, ms since 1970 | the same |
//! | `{random_id}` | 32 random hexadecimal digits | the same |
//! | `{for_update}`, `{for_share}` | `FOR UPDATE`, `FOR SHARE` | nothing: there is one writer |
//! | `{rows}` | `UNNEST($n::…[], …) AS r(…)` | `json_each($n)` unpacked, `AS r` |

use sqlx::{Arguments as _, AssertSqlSafe, SqlStr, postgres::PgArguments, sqlite::SqliteArguments};

use crate::Error;

/// An argument of a statement. A `u64` that exceeds the database's integers fails when the statement runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
    OutOfRange(u64),
}

macro_rules! arg_from {
    ($($type:ty => |$value:ident| $arg:expr),+ $(,)?) => {
        $(impl From<$type> for Arg {
            fn from($value: $type) -> Self {
                $arg
            }
        })+
    };
}

arg_from! {
    i64 => |value| Self::Int(Some(value)),
    i32 => |value| Self::Int(Some(value.into())),
    u32 => |value| Self::Int(Some(value.into())),
    u16 => |value| Self::Int(Some(value.into())),
    bool => |value| Self::Int(Some(value.into())),
    u64 => |value| i64::try_from(value).map_or(Self::OutOfRange(value), |value| Self::Int(Some(value))),
    Option<i64> => |value| Self::Int(value),
    &str => |value| Self::Text(Some(value.to_owned())),
    String => |value| Self::Text(Some(value)),
    &String => |value| Self::Text(Some(value.clone())),
    Option<String> => |value| Self::Text(value),
    &[u8] => |value| Self::Blob(Some(value.to_vec())),
    Vec<u8> => |value| Self::Blob(Some(value)),
    Option<Vec<u8>> => |value| Self::Blob(value),
}

impl<const N: usize> From<[u8; N]> for Arg {
    fn from(value: [u8; N]) -> Self {
        Self::Blob(Some(value.to_vec()))
    }
}

/// One statement with its arguments: `$1`, `$2` … in the order of binding, then the columns of `{rows}`.
#[derive(Debug, Clone)]
pub struct Query {
    text: &'static str,
    args: Vec<Arg>,
    rows: Option<Rows>,
}

/// Starts a statement. The module documents its markers.
pub fn sql(text: &'static str) -> Query {
    Query { text, args: Vec::new(), rows: None }
}

impl Query {
    #[must_use]
    pub fn bind(mut self, arg: impl Into<Arg>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The table that `{rows}` stands for, called `r` in the statement.
    #[must_use]
    pub fn rows(mut self, rows: Rows) -> Self {
        self.rows = Some(rows);
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ColumnType {
    Int,
    Text,
    Blob,
}

/// A small table as an argument, column by column.
#[derive(Debug, Clone, Default)]
pub struct Rows(Vec<(&'static str, ColumnType, Vec<Arg>)>);

impl Rows {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn ints<T: Into<Arg>>(self, name: &'static str, values: impl IntoIterator<Item = T>) -> Self {
        self.column(name, ColumnType::Int, values)
    }

    #[must_use]
    pub fn texts<T: Into<Arg>>(self, name: &'static str, values: impl IntoIterator<Item = T>) -> Self {
        self.column(name, ColumnType::Text, values)
    }

    #[must_use]
    pub fn blobs<T: Into<Arg>>(self, name: &'static str, values: impl IntoIterator<Item = T>) -> Self {
        self.column(name, ColumnType::Blob, values)
    }

    fn column<T: Into<Arg>>(
        mut self,
        name: &'static str,
        kind: ColumnType,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.0.push((name, kind, values.into_iter().map(Into::into).collect()));
        self
    }

    fn names(&self) -> String {
        self.0.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
    }
}

pub(crate) trait Engine {
    type Args: Default;
    const MARKERS: [(&'static str, &'static str); 4];
    fn add(args: &mut Self::Args, arg: Arg) -> Result<(), Error>;
    /// Adds the table's arguments after the first `bound` ones. Returns the text for `{rows}`.
    fn add_rows(args: &mut Self::Args, bound: usize, rows: Rows) -> Result<String, Error>;
}

/// The statement in the engine's dialect.
pub(crate) fn render<E: Engine>(query: Query) -> Result<(SqlStr, E::Args), Error> {
    use sqlx::SqlSafeStr as _;
    let mut args = E::Args::default();
    let bound = query.args.len();
    for arg in query.args {
        E::add(&mut args, arg)?;
    }
    if !query.text.contains('{') {
        return Ok((query.text.into_sql_str(), args));
    }
    let rows = query.rows.map(|rows| E::add_rows(&mut args, bound, rows)).transpose()?;
    // Safe: the text consists of literals of this program.
    Ok((AssertSqlSafe(expand_markers::<E>(query.text, rows.as_deref())).into_sql_str(), args))
}

fn expand_markers<E: Engine>(text: &str, rows: Option<&str>) -> String {
    let mut expanded = String::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some((before, marked)) = rest.find('{').map(|at| rest.split_at(at)) {
        expanded.push_str(before);
        let mut markers = E::MARKERS.into_iter().chain(rows.map(|rows| ("{rows}", rows)));
        let found = markers.find(|(marker, _)| marked.starts_with(marker));
        let (marker, sql_text) = found.unwrap_or(("{", "{"));
        expanded.push_str(sql_text);
        rest = &marked[marker.len()..];
    }
    expanded + rest
}

pub(crate) struct Postgres;

impl Engine for Postgres {
    type Args = PgArguments;
    const MARKERS: [(&'static str, &'static str); 4] = [
        ("{now_ms}", "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"),
        ("{random_id}", "replace(CAST(gen_random_uuid() AS TEXT), '-', '')"),
        ("{for_update}", "FOR UPDATE"),
        ("{for_share}", "FOR SHARE"),
    ];

    fn add(args: &mut PgArguments, arg: Arg) -> Result<(), Error> {
        encoded(match arg {
            Arg::Int(value) => args.add(value),
            Arg::Text(value) => args.add(value),
            Arg::Blob(value) => args.add(value),
            Arg::OutOfRange(value) => return Err(Error::OutOfRange(value)),
        })
    }

    fn add_rows(args: &mut PgArguments, bound: usize, rows: Rows) -> Result<String, Error> {
        let names = rows.names();
        let mut arrays = Vec::new();
        for (at, (_, kind, values)) in rows.0.into_iter().enumerate() {
            let sql_text = match kind {
                ColumnType::Int => "BIGINT",
                ColumnType::Text => "TEXT",
                ColumnType::Blob => "BYTEA",
            };
            arrays.push(format!("${}::{sql_text}[]", bound + at + 1));
            encoded(match kind {
                ColumnType::Int => args.add(collect(values, |arg| match arg {
                    Arg::Int(value) => Some(value),
                    _ => None,
                })?),
                ColumnType::Text => args.add(collect(values, |arg| match arg {
                    Arg::Text(value) => Some(value),
                    _ => None,
                })?),
                ColumnType::Blob => args.add(collect(values, |arg| match arg {
                    Arg::Blob(value) => Some(value),
                    _ => None,
                })?),
            })?;
        }
        Ok(format!("UNNEST({}) AS r({names})", arrays.join(", ")))
    }
}

pub(crate) struct Sqlite;

impl Engine for Sqlite {
    type Args = SqliteArguments;
    const MARKERS: [(&'static str, &'static str); 4] = [
        ("{now_ms}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
        ("{random_id}", "lower(hex(randomblob(16)))"),
        ("{for_update}", ""),
        ("{for_share}", ""),
    ];

    fn add(args: &mut SqliteArguments, arg: Arg) -> Result<(), Error> {
        encoded(match arg {
            Arg::Int(value) => args.add(value),
            Arg::Text(value) => args.add(value),
            Arg::Blob(value) => args.add(value),
            Arg::OutOfRange(value) => return Err(Error::OutOfRange(value)),
        })
    }

    fn add_rows(args: &mut SqliteArguments, bound: usize, rows: Rows) -> Result<String, Error> {
        let columns: Vec<String> = rows
            .0
            .iter()
            .enumerate()
            .map(|(at, (name, kind, _))| match kind {
                ColumnType::Blob => format!("unhex(json_extract(value, '$[{at}]')) AS {name}"),
                ColumnType::Int | ColumnType::Text => format!("json_extract(value, '$[{at}]') AS {name}"),
            })
            .collect();
        let count = rows.0.iter().map(|(.., values)| values.len()).max().unwrap_or(0);
        let mut table = vec![Vec::with_capacity(rows.0.len()); count];
        for (_, _, values) in rows.0 {
            for (row, arg) in table.iter_mut().zip(values) {
                row.push(json(arg)?);
            }
        }
        encoded(args.add(serde_json::Value::from(table).to_string()))?;
        Ok(format!("(SELECT {} FROM json_each(${})) AS r", columns.join(", "), bound + 1))
    }
}

fn json(arg: Arg) -> Result<serde_json::Value, Error> {
    Ok(match arg {
        Arg::Int(value) => value.into(),
        Arg::Text(value) => value.into(),
        Arg::Blob(value) => {
            value.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).into()
        }
        Arg::OutOfRange(value) => return Err(Error::OutOfRange(value)),
    })
}

fn collect<T>(values: Vec<Arg>, pick: impl Fn(Arg) -> Option<Option<T>>) -> Result<Vec<Option<T>>, Error> {
    values
        .into_iter()
        .map(|arg| match arg {
            Arg::OutOfRange(value) => Err(Error::OutOfRange(value)),
            other => {
                pick(other).ok_or_else(|| Error::Corrupt("a column of rows holds another type".to_owned()))
            }
        })
        .collect()
}

fn encoded(result: Result<(), sqlx::error::BoxDynError>) -> Result<(), Error> {
    result.map_err(|error| Error::Statement(Box::new(sqlx::Error::Encode(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_renders_for_both_engines() {
        let query = sql("UPDATE t SET a = r.a FROM {rows} WHERE t.id = r.id AND until > {now_ms} AND w = $1")
            .bind(7u32)
            .rows(Rows::new().ints("id", [1i64]).blobs("a", [vec![1u8]]));
        let (text, _) = render::<Postgres>(query.clone()).unwrap();
        assert!(text.as_str().contains("UNNEST($2::BIGINT[], $3::BYTEA[]) AS r(id, a)"), "{}", text.as_str());
        let (text, _) = render::<Sqlite>(query).unwrap();
        assert!(text.as_str().contains("unhex(json_extract(value, '$[1]')) AS a FROM json_each($2)) AS r"));
    }

    #[test]
    fn u64_beyond_i64_is_refused() {
        assert!(matches!(
            render::<Sqlite>(sql("SELECT $1").bind(u64::MAX)),
            Err(Error::OutOfRange(u64::MAX))
        ));
        let rows = Rows::new().ints("id", [u64::MAX]);
        assert!(matches!(
            render::<Postgres>(sql("SELECT * FROM {rows}").rows(rows)),
            Err(Error::OutOfRange(_))
        ));
    }
}
