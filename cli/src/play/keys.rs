//! Maps keys to commands of the person.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Walking,
    Typing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Quit,
    /// -1, 0 or 1 on each axis; up is +1.
    Walk(i16, i16),
    StartTyping,
    StopTyping,
    Type(char),
    Erase,
    Say,
    Attack,
    PickUp,
    /// From 0.
    Item(usize),
    Trade,
    Accept,
    Cancel,
    Coins(i64),
}

pub fn command(mode: Mode, key: KeyEvent) -> Option<Command> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Command::Quit);
    }
    match mode {
        Mode::Typing => typing(key.code),
        Mode::Walking => walking(key.code),
    }
}

fn typing(code: KeyCode) -> Option<Command> {
    Some(match code {
        KeyCode::Enter => Command::Say,
        KeyCode::Esc => Command::StopTyping,
        KeyCode::Backspace => Command::Erase,
        KeyCode::Char(c) => Command::Type(c),
        _ => return None,
    })
}

fn walking(code: KeyCode) -> Option<Command> {
    Some(match code {
        KeyCode::Left => Command::Walk(-1, 0),
        KeyCode::Right => Command::Walk(1, 0),
        KeyCode::Up => Command::Walk(0, 1),
        KeyCode::Down => Command::Walk(0, -1),
        KeyCode::Enter => Command::StartTyping,
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Char('a') => Command::Attack,
        KeyCode::Char('g') => Command::PickUp,
        KeyCode::Char('t') => Command::Trade,
        KeyCode::Char('y') => Command::Accept,
        KeyCode::Char('n') => Command::Cancel,
        KeyCode::Char('+') => Command::Coins(1),
        KeyCode::Char('-') => Command::Coins(-1),
        KeyCode::Char(digit @ '1'..='9') => Command::Item(digit as usize - '1' as usize),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_map_to_commands_by_mode() {
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert_eq!(command(Mode::Walking, key(KeyCode::Char('q'))), Some(Command::Quit));
        assert_eq!(command(Mode::Typing, key(KeyCode::Char('q'))), Some(Command::Type('q')));
        assert_eq!(command(Mode::Walking, key(KeyCode::Char('3'))), Some(Command::Item(2)));
        assert_eq!(command(Mode::Walking, key(KeyCode::Up)), Some(Command::Walk(0, 1)));
    }
}
