//! What a character holds at a version of its row. A cache of these saves reading items again, and is never the
//! truth: a holding counts only while its version is that of the row read in the same transaction.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use shardkeep_types::{CharacterId, ItemId};

use super::{Game, Holder, Item};
use crate::{Error, Rows, Tx, sql};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    pub version: u64,
    pub coins: i64,
    pub items: BTreeMap<ItemId, Item>,
}

/// Remembers holdings by character; may forget at any time.
pub trait HoldingsCache: Send + Sync + 'static {
    /// What it holds at exactly this version, if that is known.
    fn get(&self, character: CharacterId, version: u64) -> Option<Arc<Holdings>>;
    fn put(&self, character: CharacterId, holdings: Arc<Holdings>);
}

/// Remembers nothing.
pub struct NoCache;

impl HoldingsCache for NoCache {
    fn get(&self, _: CharacterId, _: u64) -> Option<Arc<Holdings>> {
        None
    }

    fn put(&self, _: CharacterId, _: Arc<Holdings>) {}
}

impl Game {
    /// Holdings at exactly these versions, which `tx` has read. What is read anew is true when `tx` is a snapshot or
    /// has the rows locked, and is worth remembering once `tx` has ended well.
    pub(super) async fn holdings(
        &self,
        tx: &mut Tx,
        versions: &[(CharacterId, u64)],
    ) -> Result<HashMap<CharacterId, Arc<Holdings>>, Error> {
        let mut found = HashMap::with_capacity(versions.len());
        let mut missing = HashMap::new();
        for &(id, version) in versions {
            match self.cache.get(id, version) {
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
            self.cache.put(id, holdings);
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
