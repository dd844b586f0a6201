//! Checks at the start that the region's account store fits the region in the settings.

use anyhow::bail;
use shardkeep_store::{
    Database,
    accounts::regional::{self, RegionMembership},
};

use crate::central::config::Config;

/// Makes the store part of this region.
///
/// # Errors
/// The store belongs to another region, or has accounts that the centre does not know. Both would mix unrelated accounts.
pub(crate) async fn join(config: &Config, database: &Database) -> anyhow::Result<()> {
    let region = config.region.as_str();
    if region.is_empty() {
        return match regional::region(database).await? {
            None => Ok(()),
            Some(region) => bail!(
                "this account store belongs to the region `{region}` of a centre: set login.central.region = \
                 \"{region}\" and login.central.servers (or login.central.store), or use another store (login.store)"
            ),
        };
    }
    match regional::join(database, region).await? {
        RegionMembership::Member(joined) if joined == region => Ok(()),
        RegionMembership::Member(joined) => bail!(
            "this account store belongs to the region `{joined}`, but login.central.region is `{region}`: set \
             login.central.region = \"{joined}\", or use another store for `{region}` (login.store)"
        ),
        RegionMembership::Standalone { accounts } => bail!(
            "this account store has {accounts} accounts that the centre does not know, and their ids may equal ids of \
             the centre. In the home region, set login.central.adopt = true to move them to the centre. In any other \
             region, use an empty store (login.store or another data directory). Without login.central this cluster \
             keeps its own accounts"
        ),
    }
}
