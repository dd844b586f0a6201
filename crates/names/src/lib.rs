//! Text that players write: passwords (RFC 8265), character names (RFC 8266 with a rule against confusable names), and
//! lines that other players read. Pure.

mod character;
mod line;
mod password;
mod reserved;

pub use character::{CharacterName, NameError, confusable_key, fold};
pub use line::{has_bidi_control, is_plain_line};
pub use password::{PasswordError, prepare_password};
pub use reserved::{is_valid_entry, reserved_by};
