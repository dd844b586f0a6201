//! What commands that talk to a person share: tables, and passwords that do not show.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, TableComponent, presets::UTF8_NO_BORDERS};
use crossterm::{
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use shardkeep_types::Secret;

/// A table with a line under its header and nothing else.
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

/// Prints a line; that nobody reads it any more must not end who prints it.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The daemon's own words, without the wrapping of the transport. By value, to be handed to `map_err`.
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub fn plain(status: shardkeep_rpc::tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// A password from standard input (one line), or typed without echo.
pub fn password(prompt: &str, from_stdin: bool) -> Result<Secret<String>> {
    let text = if from_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    } else if std::io::stdin().is_terminal() {
        typed(prompt)?
    } else {
        bail!("no terminal to ask for the password: use --password-stdin");
    };
    if text.is_empty() {
        bail!("the password is empty");
    }
    Ok(Secret::new(text))
}

fn typed(prompt: &str) -> Result<String> {
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
