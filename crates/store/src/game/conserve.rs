//! Conservation: every stack and coin has exactly one holder, one origin, and a complete history between them. The
//! check reads the whole journal in one snapshot.

use super::tables::Game;
use crate::{Error, Query, Tx, sql};

/// The most faults of each kind that are listed.
const MAX_LISTED: usize = 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conservation {
    /// The number of stacks that exist, were minted, and were burned.
    pub items: u64,
    pub items_minted: u64,
    pub items_burned: u64,
    pub coins: i64,
    pub coins_minted: i64,
    pub coins_burned: i64,
    /// One sentence for each fault.
    pub faults: Vec<String>,
}

impl Conservation {
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// The kinds of faults: the message, and a statement that returns the names for `$`.
const FAULTS: [(&str, &str); 6] = [
    (
        "item $ is not where its journal says",
        "SELECT CAST(items.id AS TEXT) FROM items
         LEFT JOIN item_journal ON item_journal.item = items.id AND item_journal.hop = items.hop
         WHERE item_journal.item IS NULL OR item_journal.target <> items.holder
             OR item_journal.template <> items.template OR item_journal.count <> items.count",
    ),
    (
        "item $ has a way with a gap, or no origin",
        "SELECT CAST(here.item AS TEXT) FROM item_journal here
         LEFT JOIN item_journal before ON before.item = here.item AND before.hop = here.hop - 1
         WHERE (here.hop = 1 AND here.source NOT LIKE 'mint:%')
             OR (here.hop > 1 AND (before.target IS NULL OR before.target <> here.source))",
    ),
    (
        "item $ has vanished",
        "SELECT CAST(item_journal.item AS TEXT) FROM item_journal LEFT JOIN items ON items.id = item_journal.item
         WHERE items.id IS NULL GROUP BY item_journal.item
         HAVING MAX(CASE WHEN item_journal.target LIKE 'burn:%' THEN 1 ELSE 0 END) = 0",
    ),
    (
        "$ has another balance than its journal",
        "SELECT total.holder FROM (
             SELECT holder, SUM(amount) AS amount FROM (
                 SELECT target AS holder, amount FROM coin_journal
                 UNION ALL SELECT source, -amount FROM coin_journal
                 UNION ALL SELECT holder, -coins FROM balances) entries
             WHERE holder NOT LIKE 'mint:%' AND holder NOT LIKE 'burn:%' GROUP BY holder) total
         WHERE total.amount <> 0",
    ),
    (
        "item $ is held by a character that does not exist",
        "SELECT CAST(items.id AS TEXT) FROM items WHERE holder LIKE 'c:%'
             AND holder NOT IN (SELECT 'c:' || CAST(characters.id AS TEXT) FROM characters)",
    ),
    (
        "item $ lies on the ground without a place, or has a place in somebody's hands",
        "SELECT CAST(items.id AS TEXT) FROM items WHERE (holder LIKE 'g:%') <> (world IS NOT NULL)",
    ),
];

impl Game {
    pub async fn check_conservation(&self) -> Result<Conservation, Error> {
        let mut tx = self.database().snapshot().await?;
        let mut found = Conservation {
            items: fetch_number(&mut tx, sql("SELECT COUNT(*) FROM items")).await?.unsigned_abs(),
            coins: fetch_number(&mut tx, sql("SELECT CAST(COALESCE(SUM(coins), 0) AS BIGINT) FROM balances"))
                .await?,
            ..Conservation::default()
        };
        let minted = sql("SELECT COUNT(*) FROM item_journal WHERE source LIKE 'mint:%'");
        found.items_minted = fetch_number(&mut tx, minted).await?.unsigned_abs();
        let burned = sql("SELECT COUNT(*) FROM item_journal WHERE target LIKE 'burn:%'");
        found.items_burned = fetch_number(&mut tx, burned).await?.unsigned_abs();
        let minted = sql(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM coin_journal WHERE source LIKE 'mint:%'",
        );
        found.coins_minted = fetch_number(&mut tx, minted).await?;
        let burned = sql(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM coin_journal WHERE target LIKE 'burn:%'",
        );
        found.coins_burned = fetch_number(&mut tx, burned).await?;
        found.faults = check_totals(&found);
        for (message, query) in FAULTS {
            let rows = tx.fetch_all(sql(query)).await?;
            let more = rows.len().saturating_sub(MAX_LISTED);
            for mut row in rows.into_iter().take(MAX_LISTED) {
                found.faults.push(message.replace('$', &row.take::<String>()?));
            }
            if more > 0 {
                found.faults.push(format!("… and {more} more of the same"));
            }
        }
        tx.commit().await?;
        Ok(found)
    }
}

fn check_totals(found: &Conservation) -> Vec<String> {
    let mut faults = Vec::new();
    if i128::from(found.items) != i128::from(found.items_minted) - i128::from(found.items_burned) {
        let (items, minted, burned) = (found.items, found.items_minted, found.items_burned);
        faults.push(format!("{items} items exist, but {minted} were minted and {burned} burned"));
    }
    if i128::from(found.coins) != i128::from(found.coins_minted) - i128::from(found.coins_burned) {
        let (coins, minted, burned) = (found.coins, found.coins_minted, found.coins_burned);
        faults.push(format!("{coins} coins exist, but {minted} were minted and {burned} burned"));
    }
    faults
}

async fn fetch_number(tx: &mut Tx, query: Query) -> Result<i64, Error> {
    let row = tx.fetch_optional(query).await?;
    row.ok_or_else(|| Error::Corrupt("a count yields nothing".to_owned()))?.take()
}
