//! A row of a result, independent of the engine. Columns are read from left to right.

use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _, postgres::PgRow, sqlite::SqliteRow};

use crate::Error;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row. [`Row::take`] reads the next column.
#[derive(Debug)]
pub struct Row {
    values: std::vec::IntoIter<Value>,
}

impl Row {
    /// The next column.
    ///
    /// # Errors
    /// When there is none, or it is not of this type.
    pub fn take<T: FromColumn>(&mut self) -> Result<T, Error> {
        let value = self.values.next().ok_or_else(|| Error::Corrupt("a row is too short".to_owned()))?;
        T::from_value(value)
    }
}

/// Types that a column can be read as.
pub trait FromColumn: Sized {
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "sealed: nobody else implements it")]
    fn from_value(value: Value) -> Result<Self, Error>;
}

fn type_mismatch<T>(value: &Value, expected: &'static str) -> Result<T, Error> {
    let got = match value {
        Value::Null => "nothing",
        Value::Int(_) => "a number out of range",
        Value::Text(_) => "a text",
        Value::Blob(_) => "bytes",
    };
    Err(Error::Corrupt(format!("a column holds {got} instead of {expected}")))
}

macro_rules! integers {
    ($($type:ty),+) => {
        $(#[allow(private_interfaces, reason = "sealed")]
        impl FromColumn for $type {
            fn from_value(value: Value) -> Result<Self, Error> {
                match value {
                    Value::Int(number) => number.try_into().or_else(|_| type_mismatch(&value, stringify!($type))),
                    other => type_mismatch(&other, stringify!($type)),
                }
            }
        })+
    };
}

integers!(i64, i32, u64, u32, u16);

#[allow(private_interfaces, reason = "sealed")]
impl FromColumn for bool {
    fn from_value(value: Value) -> Result<Self, Error> {
        i64::from_value(value).map(|number| number != 0)
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl FromColumn for String {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Text(text) => Ok(text),
            other => type_mismatch(&other, "a text"),
        }
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl FromColumn for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Blob(bytes) => Ok(bytes),
            other => type_mismatch(&other, "bytes"),
        }
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl<T: FromColumn> FromColumn for Option<T> {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}

pub(crate) fn from_sqlite(row: &SqliteRow) -> Result<Row, Error> {
    let mut values = Vec::with_capacity(row.len());
    for at in 0..row.len() {
        // The type of the value, because SQLite does not enforce types of columns.
        let value = row.try_get_raw(at)?;
        values.push(match value.type_info().name() {
            _ if value.is_null() => Value::Null,
            "TEXT" => Value::Text(row.try_get_unchecked(at)?),
            "BLOB" => Value::Blob(row.try_get_unchecked(at)?),
            _ => Value::Int(row.try_get_unchecked(at)?),
        });
    }
    Ok(Row { values: values.into_iter() })
}

pub(crate) fn from_postgres(row: &PgRow) -> Result<Row, Error> {
    let mut values = Vec::with_capacity(row.len());
    for at in 0..row.len() {
        let value = row.try_get_raw(at)?;
        values.push(match row.column(at).type_info().name() {
            _ if value.is_null() => Value::Null,
            "INT8" => Value::Int(row.try_get::<i64, _>(at)?),
            "INT4" => Value::Int(row.try_get::<i32, _>(at)?.into()),
            "BOOL" => Value::Int(row.try_get::<bool, _>(at)?.into()),
            "BYTEA" => Value::Blob(row.try_get(at)?),
            _ => Value::Text(row.try_get(at)?),
        });
    }
    Ok(Row { values: values.into_iter() })
}
