//! Accepts one SELECT and wraps it into another one that limits the rows. The sandbox refuses other statements as well;
//! this check gives the clearer error.

use crate::LogsError;

/// A query that asks for at most `limit` rows of whatever `sql` selects.
///
/// # Errors
/// When `sql` is not a single SELECT (or WITH … SELECT), or could leave the parentheses it is put into.
pub(crate) fn wrap(sql: &str, limit: u32) -> Result<String, LogsError> {
    let sql = sql.trim().trim_end_matches(';').trim_end();
    let first = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if !["select", "with"].iter().any(|allowed| first.eq_ignore_ascii_case(allowed)) {
        return Err(LogsError::InvalidQuery("only SELECT is answered (WITH … SELECT too)"));
    }
    check(sql)?;
    // The line break ends a comment that `sql` may end with.
    Ok(format!("SELECT * FROM (\n{sql}\n) LIMIT {limit}"))
}

/// Skips strings and comments. Elsewhere a semicolon is refused and parentheses must match.
fn check(sql: &str) -> Result<(), LogsError> {
    let mut depth = 0usize;
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\0' => return Err(LogsError::InvalidQuery("a zero byte")),
            ';' => return Err(LogsError::InvalidQuery("one statement only")),
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or(LogsError::InvalidQuery("unbalanced parentheses"))?,
            // A doubled quote inside is two strings side by side here, which comes to the same.
            '\'' | '"' | '`' => skip_to(&mut rest, c)?,
            '[' => skip_to(&mut rest, ']')?,
            '-' if rest.peek() == Some(&'-') => while rest.next().is_some_and(|c| c != '\n') {},
            '/' if rest.peek() == Some(&'*') => skip_comment(&mut rest)?,
            _ => {}
        }
    }
    if depth == 0 { Ok(()) } else { Err(LogsError::InvalidQuery("unbalanced parentheses")) }
}

fn skip_to(rest: &mut impl Iterator<Item = char>, end: char) -> Result<(), LogsError> {
    rest.find(|c| *c == end).map(drop).ok_or(LogsError::InvalidQuery("a string without end"))
}

fn skip_comment(rest: &mut impl Iterator<Item = char>) -> Result<(), LogsError> {
    rest.next();
    let mut before = ' ';
    let end = rest.find(|c| std::mem::replace(&mut before, *c) == '*' && *c == '/');
    // SQLite would end such a comment at the end of its input, and with it our closing parenthesis.
    end.map(drop).ok_or(LogsError::InvalidQuery("a comment without end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_selects_are_accepted() {
        for sql in [
            "SELECT * FROM log",
            "  select 1;  ",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "SELECT ';' || ')' || '--' AS \"odd ) name\" -- comment ; )",
            "SELECT 1 /* ; ) */",
            "SELECT 'it''s'",
        ] {
            assert!(wrap(sql, 5).is_ok(), "{sql}");
        }
    }

    #[test]
    fn other_statements_are_refused() {
        for sql in [
            "",
            "DELETE FROM log",
            "PRAGMA query_only = OFF",
            "ATTACH 'x' AS y",
            "SELECT 1; DROP TABLE log",
            "SELECT 1) ; DELETE FROM log; --",
            "SELECT 1) UNION SELECT (2",
            "SELECT (1",
            "SELECT 'open",
            "SELECT 1 /* open",
            "SELECT 1 /*/",
            "selection",
            "SELECT 1\0",
        ] {
            assert!(wrap(sql, 5).is_err(), "{sql}");
        }
    }
}
