//! The file that keeps the token of a signed-in operator, readable by its owner only.

use std::{
    fs::{self, DirBuilder, File},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, bail};
use shardkeep_rpc::tonic::Request;

use crate::{data_dir::DataDir, operator::ClusterArgs, program};

pub struct TokenFile {
    path: PathBuf,
    /// The command that signs in to this cluster.
    sign_in: String,
}

impl TokenFile {
    /// The named file, else a file of the local cluster. A cluster elsewhere (`--registry`) has a file in the home
    /// directory, because this machine has no folder of it.
    ///
    /// # Errors
    /// When the environment names no home directory and no other folder for state.
    pub fn new(named: Option<PathBuf>, cluster: &ClusterArgs) -> Result<Self> {
        let dir = DataDir::new(&cluster.data_dir)?;
        let path = match (named, &cluster.registry) {
            (Some(path), _) => path,
            (None, Some(registry)) => state_folder()?.join(file_name(registry)),
            (None, None) => dir.run().join("operator.token"),
        };
        let sign_in = match &cluster.registry {
            Some(registry) => format!("shardkeep gm sign-in NAME --registry {registry}"),
            None => program::hint("gm sign-in NAME", dir.path()),
        };
        Ok(Self { path, sign_in })
    }

    /// Makes the folder and the file, so that a sign-in does not fail at its last step.
    pub fn prepare(&self) -> Result<()> {
        if let Some(folder) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| self.cannot("make the folder of"))?;
        }
        self.open().map(drop)
    }

    pub fn write(&self, token: &str) -> Result<()> {
        let mut file = self.open()?;
        file.set_len(0)?;
        file.write_all(token.as_bytes()).with_context(|| self.cannot("write"))
    }

    pub fn delete(&self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot delete {}", self.path.display()))
    }

    /// Adds the token to a request.
    pub fn sign<T>(&self, message: T) -> Result<Request<T>> {
        let token = fs::read_to_string(&self.path).unwrap_or_default();
        let token = token.trim();
        if token.is_empty() {
            bail!("not signed in: `{}` (at first `gm claim` in place of `gm sign-in NAME`)", self.sign_in);
        }
        let mut request = Request::new(message);
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| anyhow!("{} holds no token: sign in again", self.path.display()))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    fn open(&self) -> Result<File> {
        let options = File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.path);
        options.with_context(|| self.cannot("write"))
    }

    fn cannot(&self, verb: &str) -> String {
        format!("cannot {verb} {}: --token-file names another file", self.path.display())
    }
}

/// The folder for state that the XDG base directory specification names.
fn state_folder() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state = state.context("HOME names no folder for the token: --token-file names a file for it")?;
    Ok(state.join("shardkeep"))
}

/// `registry:7001` becomes `registry_7001.token`.
fn file_name(registry: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    format!("{}.token", registry.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    fn token_file(path: &Path) -> TokenFile {
        let cluster =
            ClusterArgs { data_dir: "nowhere".into(), registry: Some("[::1]:7001".into()), tls_dir: None };
        TokenFile::new(Some(path.to_owned()), &cluster).unwrap()
    }

    #[test]
    fn token_is_kept_in_a_new_private_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/shardkeep/one.token");
        let tokens = token_file(&path);
        let error = tokens.sign(()).unwrap_err().to_string();
        assert!(error.contains("not signed in") && error.contains("--registry [::1]:7001"), "{error}");
        tokens.prepare().unwrap();
        assert!(tokens.sign(()).unwrap_err().to_string().contains("not signed in"));
        tokens.write("a-longer-token").unwrap();
        tokens.write("token").unwrap();
        let signed = tokens.sign(()).unwrap();
        assert_eq!(signed.metadata().get("authorization").unwrap(), "Bearer token");
        for (path, mode) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        tokens.delete().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn unwritable_token_file_is_reported_before_the_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = token_file(&folder.path().join("file/one.token")).prepare().unwrap_err().to_string();
        assert!(error.contains("--token-file"), "{error}");
    }

    #[test]
    fn registry_address_becomes_a_file_name() {
        assert_eq!(file_name("registry:7001"), "registry_7001.token");
        assert_eq!(file_name("[::1]:7001"), "___1__7001.token");
        assert_eq!(file_name("../x"), ".._x.token");
    }
}
