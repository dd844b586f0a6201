//! Reads holdings from the cache, and the rest from the database.

use std::{collections::HashMap, sync::Arc};

use shardkeep_types::{CharacterId, ItemId};

use super::{holder::Holder, holdings::Holdings, tables::Game, types::Item};
use crate::{Error, Rows, Tx, sql};

impl Game {
    /// Holdings at exactly these versions, which `tx` has read. `tx` must be a snapshot or hold locks on the rows. The
    /// caller caches the result after `tx` has ended without an error.
    pub(super) async fn holdings(
        &self,
        tx: &mut Tx,
        versions: &[(CharacterId, u64)],
    ) -> Result<HashMap<CharacterId, Arc<Holdings>>, Error> {
        let mut found = HashMap::with_capacity(versions.len());
        let mut missing = HashMap::new();
        for &(id, version) in versions {
            match self.cache().get(id, version) {
                Some(known) => drop(found.insert(id, known)),
                None => drop(missing.insert(
                    Holder::Character(id).to_string(),
                    (id, Holdings { version, ..Holdings::default() }),
                )),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        read(tx, &mut missing).await?;
        found.extend(missing.into_values().map(|(id, holdings)| (id, Arc::new(holdings))));
        Ok(found)
    }

    pub(super) fn cache_holdings(&self, holdings: impl IntoIterator<Item = (CharacterId, Arc<Holdings>)>) {
        for (id, holdings) in holdings {
            self.cache().put(id, holdings);
        }
    }
}

async fn read(tx: &mut Tx, missing: &mut HashMap<String, (CharacterId, Holdings)>) -> Result<(), Error> {
    let holders = Rows::new().texts("holder", missing.keys());
    let items =
        sql("SELECT holder, id, template, count FROM items WHERE holder IN (SELECT r.holder FROM {rows})");
    for mut row in tx.fetch_all(items.rows(holders.clone())).await? {
        let holder: String = row.take()?;
        let item = Item { id: ItemId(row.take()?), template: row.take()?, count: row.take()? };
        if let Some((_, holdings)) = missing.get_mut(&holder) {
            holdings.items.insert(item.id, item);
        }
    }
    let coins = sql("SELECT holder, coins FROM balances WHERE holder IN (SELECT r.holder FROM {rows})");
    for mut row in tx.fetch_all(coins.rows(holders)).await? {
        let holder: String = row.take()?;
        if let Some((_, holdings)) = missing.get_mut(&holder) {
            holdings.coins = row.take()?;
        }
    }
    Ok(())
}
