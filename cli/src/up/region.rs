//! One of several regions on this machine. The home region keeps the accounts. Another region joins it by its data folder,
//! from which it copies the certificate authority and reads the address of the login server.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::{data_dir::DataDir, program};

/// The daemon that serves the centre.
const LOGIN: &str = "login-1";

#[derive(Debug, Clone, PartialEq)]
pub enum Region {
    /// Keeps the centre.
    Home { name: String },
    /// Queries the login server at this address.
    Other { name: String, at: String },
}

impl Region {
    /// `[login.central]`
    pub fn settings(&self, postgres: Option<&str>, dir: &DataDir) -> Table {
        let mut central = Table::new();
        let name = match self {
            Self::Home { name } => {
                let file = || format!("sqlite:{}", dir.db().join("central.db").display());
                central.insert("store".into(), postgres.map_or_else(file, str::to_owned).into());
                name
            }
            Self::Other { name, at } => {
                central.insert("servers".into(), Value::Array(vec![at.clone().into()]));
                name
            }
        };
        central.insert("region".into(), name.clone().into());
        // Two clusters share the cores of one machine, so answers take longer.
        central.insert("wait".into(), "500ms".into());
        central
    }
}

/// Without `home`, this is the home region. Otherwise the region joins the home region in the data folder `home`, and
/// copies its certificate authority.
pub fn open(name: &str, home: Option<&Path>, dir: &DataDir) -> Result<Region> {
    let name = name.to_owned();
    let Some(home) = home else { return Ok(Region::Home { name }) };
    let home = DataDir::new(home)?;
    let missing = || format!("no home region has run in {}", home.path().display());
    let start = format!("start it first: {} --region NAME", program::hint("up", home.path()));
    let Some(login) = home.announced(LOGIN) else { bail!("{}: {start}", missing()) };
    if !serves_central(&home)? {
        bail!(
            "the cluster in {} is no home region; {start}, on a data folder without accounts",
            home.path().display()
        );
    }
    for file in ["ca.pem", "ca.key"] {
        copy_authority(&home.tls().join(file), &dir.tls().join(file))?;
    }
    Ok(Region::Other { name, at: login.grpc })
}

/// Reads the last configuration of its login server.
fn serves_central(home: &DataDir) -> Result<bool> {
    let path = home.config(LOGIN);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let store = config.get("login").and_then(|login| login.get("central")?.get("store"));
    Ok(store.is_some())
}

fn copy_authority(from: &Path, to: &Path) -> Result<()> {
    let theirs = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    match fs::read(to) {
        Ok(ours) if ours == theirs => Ok(()),
        Ok(_) => bail!(
            "{} is of another authority than {}: regions of one home share it; begin with an empty --data-dir",
            to.display(),
            from.display()
        ),
        // The copy has the mode of the original, which keeps the key private.
        Err(_) => fs::copy(from, to).map(drop).with_context(|| format!("cannot write {}", to.display())),
    }
}

/// How another region joins, or which one this cluster has joined.
pub fn join_hint(region: &str, home: Option<&Path>, dir: &DataDir) -> String {
    match home {
        Some(home) => {
            format!("region {region}: accounts are shared with the home region in {}", home.display())
        }
        None => format!(
            "region {region} keeps the accounts; another region joins with: {} --home {} --region NAME --port-base 17000",
            program::hint("up", Path::new("DIR")),
            program::quoted(&dir.path().to_string_lossy())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_region_copies_address_and_authority() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (home, own) =
            (DataDir::new(at("eu").as_ref()).unwrap(), DataDir::new(at("us").as_ref()).unwrap());
        home.create().unwrap();
        own.create().unwrap();
        assert_eq!(open("eu", None, &home).unwrap(), Region::Home { name: "eu".into() });

        let (place, joins) = (at("eu"), |dir: &DataDir, place: &str| open("us", Some(place.as_ref()), dir));
        assert!(joins(&own, &place).unwrap_err().to_string().contains("no home region has run"));
        let announcement =
            r#"{"name":"login-1","kind":"login","pid":1,"grpc":"127.0.0.1:7003","admin":"127.0.0.1:7403"}"#;
        fs::write(home.announcement(LOGIN), announcement).unwrap();
        fs::write(home.config(LOGIN), "[login]\nlisten = \"127.0.0.1:7100\"\n").unwrap();
        assert!(joins(&own, &place).unwrap_err().to_string().contains("is no home region"));
        fs::write(home.config(LOGIN), "[login.central]\nregion = \"eu\"\nstore = \"sqlite:x\"\n").unwrap();
        for file in ["ca.pem", "ca.key"] {
            fs::write(home.tls().join(file), file).unwrap();
        }
        let expected = Region::Other { name: "us".into(), at: "127.0.0.1:7003".into() };
        for _ in 0..2 {
            assert_eq!(joins(&own, &place).unwrap(), expected);
            assert_eq!(fs::read(own.tls().join("ca.key")).unwrap(), b"ca.key");
        }
        fs::write(own.tls().join("ca.pem"), "another").unwrap();
        assert!(joins(&own, &place).unwrap_err().to_string().contains("another authority"));
    }
}
