//! Paths of files in a release. A manifest is untrusted, and its paths become files on a player's disk. A valid path
//! is therefore harmless and means the same on every system.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

/// Maximum length of a path in bytes.
pub const MAX: usize = 400;
/// Maximum length of a part in bytes.
pub const MAX_PART: usize = 120;
/// Maximum number of parts.
pub const MAX_DEPTH: usize = 32;
/// First part that is reserved for the client's own files.
pub const RESERVED: &str = ".shardkeep";

/// Device names on Windows, with any extension.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
/// Device names that are followed by a digit.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// A relative path with `/` between its parts. It is safe to append to any folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleasePath(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is empty")]
    Empty,
    #[error(
        "a path is longer than {MAX} bytes, or a part of it than {MAX_PART}, or it is deeper than {MAX_DEPTH}"
    )]
    TooLong,
    #[error("a path is not UTF-8")]
    NotText,
    #[error("a path is absolute")]
    Absolute,
    #[error("a path has an empty part, `.` or `..`")]
    Dots,
    #[error("a path has a character that not every system allows in a name")]
    Character,
    #[error("a part of a path ends with a dot or a space")]
    Ending,
    #[error("a part of a path is the name of a device")]
    Device,
    /// Windows gives such aliases to files with longer names, so the path could mean another file.
    #[error("a part of a path has the form of a short name of Windows, such as PROGRA~1; rename the file")]
    ShortName,
    #[error("a path begins with {RESERVED}, which is the client's own")]
    Reserved,
}

impl PathError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "path_empty",
            Self::TooLong => "path_too_long",
            Self::NotText => "path_not_text",
            Self::Absolute => "path_absolute",
            Self::Dots => "path_dots",
            Self::Character => "path_character",
            Self::Ending => "path_ending",
            Self::Device => "path_device",
            Self::ShortName => "path_short_name",
            Self::Reserved => "path_reserved",
        }
    }
}

impl ReleasePath {
    /// # Errors
    /// Fails if the path is not valid on every system, or leaves its folder.
    pub fn new(path: &str) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.len() > MAX {
            return Err(PathError::TooLong);
        }
        if path.starts_with(['/', '\\']) {
            return Err(PathError::Absolute);
        }
        for (depth, part) in path.split('/').enumerate() {
            check(part)?;
            if depth >= MAX_DEPTH {
                return Err(PathError::TooLong);
            }
            if depth == 0 && fold(part) == RESERVED {
                return Err(PathError::Reserved);
            }
        }
        Ok(Self(path.to_owned()))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| PathError::NotText)?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with case folding and Unicode normalisation. Two paths with the same folded form are one file on some
    /// system (APFS, HFS+, NTFS).
    pub fn folded(&self) -> String {
        fold(&self.0)
    }

    /// The parent folders, outermost first, folded.
    pub(crate) fn folded_parents(&self) -> impl Iterator<Item = String> {
        let folded = self.folded();
        let ends: Vec<usize> = folded.match_indices('/').map(|(at, _)| at).collect();
        ends.into_iter().map(move |end| folded[..end].to_owned())
    }
}

impl fmt::Display for ReleasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReleasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn check(part: &str) -> Result<(), PathError> {
    if matches!(part, "" | "." | "..") {
        return Err(PathError::Dots);
    }
    if part.len() > MAX_PART {
        return Err(PathError::TooLong);
    }
    if part.contains(|c: char| c.is_control() || r#"\:<>"|?*"#.contains(c) || is_invisible(c)) {
        return Err(PathError::Character);
    }
    if part.ends_with(['.', ' ']) || part.starts_with(' ') {
        return Err(PathError::Ending);
    }
    let stem = fold(part.split('.').next().unwrap_or(part).trim_end());
    let numbered = |device: &&str| {
        let digit = stem.strip_prefix(*device);
        digit.is_some_and(|digit| {
            matches!(digit.as_bytes(), [b'0'..=b'9']) || matches!(digit, "¹" | "²" | "³")
        })
    };
    if DEVICES.contains(&stem.as_str()) || NUMBERED_DEVICES.iter().any(numbered) {
        return Err(PathError::Device);
    }
    if is_short_name(part) {
        return Err(PathError::ShortName);
    }
    Ok(())
}

/// Whether Windows may give this name to a file with a longer one: at most 8 characters that end in `~` and digits, and
/// an extension of at most 3.
fn is_short_name(part: &str) -> bool {
    let (stem, extension) = part.rsplit_once('.').unwrap_or((part, ""));
    let number = stem.rsplit_once('~').map(|(_, number)| number);
    stem.chars().count() <= 8
        && extension.chars().count() <= 3
        && number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Invisible characters that change how a name is displayed: two names that look alike could be two files.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Upper case first, because it also maps letters without a lower-case partner (`ß` and `ss`, `ſ` and `s`).
fn fold(text: &str) -> String {
    text.nfd().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfc().collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_paths_are_accepted() {
        for path in [
            "game",
            "data/maps/meadow.pak",
            ".hidden",
            "a b/ä (1).txt",
            "com10",
            "console.txt",
            "a..b",
            "a~b",
            "backup~",
            "longername~1",
        ] {
            assert_eq!(ReleasePath::new(path).map(|path| path.to_string()), Ok(path.to_owned()));
        }
    }

    #[test]
    fn invalid_path_gives_specific_error() {
        use PathError::*;
        let long = "x/".repeat(33) + "x";
        for (path, error) in [
            ("", Empty),
            ("/etc/passwd", Absolute),
            ("\\\\server\\share", Absolute),
            ("a/../../b", Dots),
            ("./a", Dots),
            ("a//b", Dots),
            ("a/", Dots),
            ("a\\b", Character),
            ("c:file", Character),
            ("stream:data", Character),
            ("line\nbreak", Character),
            ("hidden\u{202e}txt.exe", Character),
            ("nul\0", Character),
            ("end.", Ending),
            ("end /x", Ending),
            ("data/NUL", Device),
            ("con.txt", Device),
            ("Com1", Device),
            ("lpt9.tar.gz", Device),
            ("aux .txt", Device),
            (".shardkeep/key", Reserved),
            (".SHARDKEEP/key", Reserved),
            (".\u{17f}hardkeep/key", Reserved),
            ("SHARDK~1/key", ShortName),
            ("data/progr~12.pak", ShortName),
            ("A~1", ShortName),
            (long.as_str(), TooLong),
            ("x".repeat(121).as_str(), TooLong),
        ] {
            assert_eq!(ReleasePath::new(path), Err(error), "{path:?}");
        }
        assert_eq!(ReleasePath::from_bytes(&[0xff]), Err(NotText));
        assert!(ReleasePath::new("a/.shardkeep").is_ok());
    }

    #[test]
    fn folded_parents_start_at_outermost() {
        let path = ReleasePath::new("Data/Maps/meadow.pak").unwrap();
        assert_eq!(path.folded_parents().collect::<Vec<_>>(), ["data", "data/maps"]);
    }

    proptest! {
        #[test]
        fn accepted_path_stays_inside_its_folder(path in r"[a-c./\\:A-Z\PC]{0,24}") {
            if let Ok(path) = ReleasePath::new(&path) {
                let mut parts = Path::new(path.as_str()).components();
                prop_assert!(parts.all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
