//! Tables, errors and hidden input for commands in a terminal.

use std::io::{BufRead, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, TableComponent, presets::UTF8_NO_BORDERS};
use crossterm::{
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use shardkeep_rpc::tonic::Status;
use shardkeep_types::Secret;

/// A table without borders, with a line under its header.
pub fn table<H: Into<comfy_table::Row>>(header: H) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_NO_BORDERS).remove_style(TableComponent::HorizontalLines);
    for part in [TableComponent::VerticalLines, TableComponent::MiddleIntersections] {
        table.remove_style(part);
    }
    table
        .set_style(TableComponent::HeaderLines, '─')
        .set_style(TableComponent::MiddleHeaderIntersections, '─');
    table.set_header(header);
    table
}

/// Prints a line. A closed standard output does not end the program.
pub fn emit(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The daemon's message without the parts that the transport adds. By value, for `map_err`.
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub fn status_error(status: Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// The error and its causes, each once: many errors repeat their cause, and the transport's errors add their structure.
pub fn explain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut emit = |text: String| {
        if !parts.iter().any(|before| before.contains(&text)) {
            parts.push(text);
        }
    };
    for cause in error.chain() {
        let Some(status) = cause.downcast_ref::<Status>() else {
            emit(cause.to_string());
            continue;
        };
        emit(match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        });
        if let Some(root_cause) = root_cause(status) {
            emit(root_cause);
        }
        break;
    }
    parts.join(": ")
}

/// The last error of a chain of causes.
fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.last().map(ToString::to_string)
}

/// A password from standard input (one line), or typed without echo.
pub fn password(prompt: &str, from_stdin: bool) -> Result<Secret<String>> {
    secret(prompt, "password", from_stdin)
}

/// Any secret, read in the same way. `what` names it in errors.
pub fn secret(prompt: &str, what: &str, from_stdin: bool) -> Result<Secret<String>> {
    let text = if from_stdin {
        line(&mut std::io::stdin().lock(), what)?
    } else if std::io::stdin().is_terminal() {
        prompt_hidden(prompt)?
    } else {
        bail!("no terminal to ask for the {what}: use --password-stdin");
    };
    if text.is_empty() {
        bail!("the {what} is empty");
    }
    Ok(Secret::new(text))
}

fn line(input: &mut impl BufRead, what: &str) -> Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        bail!("standard input has ended before the {what}, which takes a line of its own");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn prompt_hidden(prompt: &str) -> Result<String> {
    eprint!("{prompt}: ");
    std::io::stderr().flush()?;
    enable_raw_mode().context("cannot hide what is typed")?;
    let text = read_hidden();
    let restored = disable_raw_mode();
    eprintln!();
    restored?;
    text
}

fn read_hidden() -> Result<String> {
    let mut text = String::new();
    loop {
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok(text),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => bail!("given up"),
            KeyCode::Char(c) => text.push(c),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_reports_each_cause_once() {
        let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let doubled = anyhow::Error::new(shardkeep_client::ClientError::Io(eof()));
        assert_eq!(explain(&doubled), "connection: unexpected end of file");
        let refused = anyhow::Error::new(Status::not_found("there is no pool foo")).context("dns-1");
        assert_eq!(explain(&refused), "dns-1: there is no pool foo");
        let mut broken = Status::unavailable("tcp connect error");
        broken.set_source(std::sync::Arc::new(std::io::Error::other(eof())));
        let broken = anyhow::Error::new(broken).context("the registry does not answer");
        assert_eq!(
            explain(&broken),
            "the registry does not answer: tcp connect error: unexpected end of file"
        );
    }

    #[test]
    fn missing_input_line_is_named_in_error() {
        let mut input = &b"secret\r\n"[..];
        assert_eq!(line(&mut input, "password").unwrap(), "secret");
        let missing = line(&mut input, "code of the authenticator").unwrap_err().to_string();
        assert!(missing.contains("ended before the code of the authenticator"), "{missing}");
    }
}
