//! A log file that is replaced when it has reached its limit.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

/// Appends to `<path>`. When the next line would exceed the limit, the file becomes `<path>.1`, which replaces an older
/// one, so that both together hold at most twice the limit. Clones write to the same file.
#[derive(Clone)]
pub(crate) struct RotatingFile(Arc<Mutex<State>>);

struct State {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl RotatingFile {
    /// # Errors
    /// When the file or its folder cannot be created.
    pub(crate) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = append_to(path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(State { path: path.to_owned(), file, written, limit }))))
    }
}

impl State {
    /// If the rotation fails, for example on a read-only folder, the file grows on: no line is lost.
    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        if std::fs::rename(&self.path, &old).is_ok()
            && let Ok(file) = append_to(&self.path)
        {
            self.file = file;
            self.written = 0;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for RotatingFile {
    /// The subscriber passes each line at once, so that no line is split.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.written > 0 && state.written + line.len() as u64 > state.limit {
            state.rotate();
        }
        state.file.write_all(line)?;
        state.written += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_log_file_is_rotated_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/zone-1.log");
        let mut log = RotatingFile::open(&path, 30).unwrap();
        for number in 0..7 {
            log.write_all(format!("line number {number}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "line number 6\n");
        assert_eq!(read(&dir.path().join("log/zone-1.log.1")), "line number 4\nline number 5\n");
        // A restart continues the file.
        RotatingFile::open(&path, 30).unwrap().write_all(b"line number 7\n").unwrap();
        assert_eq!(read(&path), "line number 6\nline number 7\n");
    }
}
