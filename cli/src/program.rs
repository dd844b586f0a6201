//! The file of this program: how it starts itself again, also after another build has replaced the file, and how a person
//! types its commands.

use std::{
    borrow::Cow,
    fmt, fs,
    fs::File,
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use tokio::process::Command;

/// Keeps the running file open, so that a new build of the program cannot take it away.
pub struct Program {
    path: PathBuf,
    file: File,
}

/// The file that a command of [`Program::command`] runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file at the path of the program, which is the one that runs.
    Path(PathBuf),
    /// The file that runs, whose path now leads to another file or to none.
    Replaced(PathBuf),
}

impl Program {
    /// # Errors
    /// When the system does not tell the path of this program.
    pub fn this() -> Result<Self> {
        let path = std::env::current_exe().context("cannot find this program's own file")?;
        Self::open(path, Path::new("/proc/self/exe")).context("cannot open this program's own file")
    }

    fn open(path: PathBuf, file: &Path) -> io::Result<Self> {
        // A handle for execution needs no permission to read the file.
        let flags = i32::try_from(OFlags::PATH.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(flags).open(file)?;
        Ok(Self { path, file })
    }

    /// A command that runs this same file. All daemons of a cluster then have one version until `up` starts again.
    pub fn command(&self) -> (Command, Source) {
        if self.is_at_its_path() {
            return (Command::new(&self.path), Source::Path(self.path.clone()));
        }
        // The child inherits the descriptor until it executes the file.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(&self.path);
        (command, Source::Replaced(self.path.clone()))
    }

    fn is_at_its_path(&self) -> bool {
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(running)) => there.dev() == running.dev() && there.ino() == running.ino(),
            _ => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Replaced(path) => write!(
                f,
                "the old file of {}, which was replaced; end and start the cluster to use the new file",
                path.display()
            ),
        }
    }
}

/// A command of this program that a person can paste into a shell, for the cluster in this folder.
pub fn hint(command: &str, data_dir: &Path) -> String {
    format!("{} {command} --data-dir {}", invocation(), quoted(&data_dir.to_string_lossy()))
}

/// Path of the command `shardkeep`: this program, or the one beside this tool.
///
/// # Errors
/// When the system does not tell the path of this program.
pub fn main_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let beside = own.with_file_name("shardkeep");
    Ok(if beside.exists() { beside } else { own })
}

/// The program as a shell finds it: by its name if `PATH` leads to it, else by its path.
fn invocation() -> String {
    let Ok(path) = main_program() else { return "shardkeep".to_owned() };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    invocation_of(&path, std::env::split_paths(&folders))
}

fn invocation_of(path: &Path, mut folders: impl Iterator<Item = PathBuf>) -> String {
    let name = path.file_name().unwrap_or_default();
    let first = folders.find_map(|folder| fs::canonicalize(folder.join(name)).ok());
    if first.is_some() && first == fs::canonicalize(path).ok() {
        return quoted(&name.to_string_lossy()).into_owned();
    }
    quoted(&path.to_string_lossy()).into_owned()
}

/// The text as one word for a shell.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two programs that print different words: this one is `old`.
    fn echo_program(folder: &Path) -> Program {
        let path = folder.join("program");
        fs::copy("/bin/echo", &path).unwrap();
        Program::open(path.clone(), &path).unwrap()
    }

    async fn output(program: &Program, args: &[&str]) -> (String, Source) {
        let (mut command, source) = program.command();
        let output = command.args(args).output().await.unwrap();
        (String::from_utf8(output.stdout).unwrap(), source)
    }

    #[tokio::test]
    async fn unchanged_program_runs_from_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = echo_program(folder.path());
        let (text, source) = output(&program, &["again"]).await;
        assert_eq!((text.as_str(), source), ("again\n", Source::Path(folder.path().join("program"))));
    }

    #[tokio::test]
    async fn deleted_program_runs_from_its_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let program = echo_program(folder.path());
        fs::remove_file(folder.path().join("program")).unwrap();
        let (text, source) = output(&program, &["again"]).await;
        assert_eq!((text.as_str(), source), ("again\n", Source::Replaced(folder.path().join("program"))));
    }

    #[tokio::test]
    async fn replaced_program_runs_from_its_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let (program, path) = (echo_program(folder.path()), folder.path().join("program"));
        fs::copy("/bin/false", folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let (text, source) = output(&program, &["again"]).await;
        assert_eq!(text, "again\n");
        assert!(source.to_string().contains("was replaced"), "{source}");
    }

    #[test]
    fn hint_names_program_on_path_and_quotes_other_paths() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own tools"), folder.path().join("other"));
        for place in [&own, &other] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("shardkeep"), "").unwrap();
        }
        let path = own.join("shardkeep");
        assert_eq!(invocation_of(&path, [own.clone(), other.clone()].into_iter()), "shardkeep");
        let quoted_path = format!("'{}'", path.display());
        assert_eq!(invocation_of(&path, [other, own].into_iter()), quoted_path);
        assert_eq!(invocation_of(&path, std::iter::empty()), quoted_path);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn hint_contains_the_data_directory() {
        let hint = hint("demo", Path::new("/tmp/game data"));
        assert!(hint.ends_with(" demo --data-dir '/tmp/game data'"), "{hint}");
    }
}
