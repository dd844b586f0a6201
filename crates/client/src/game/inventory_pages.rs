//! Assembles an inventory from its pages.

use shardkeep_wire::payload::Inventory;

/// The pages of one inventory so far.
#[derive(Debug, Default)]
pub(crate) struct InventoryPages(Inventory);

impl InventoryPages {
    /// Index of the first item of the next page.
    pub(crate) fn next_first(&self) -> u32 {
        u32::try_from(self.0.items.len()).unwrap_or(u32::MAX)
    }

    /// Adds a page. Returns the inventory when it is complete. A page that does not follow the last one, or that belongs to
    /// another state of the inventory, begins anew.
    pub(crate) fn push(&mut self, page: Inventory) -> Option<Inventory> {
        let follows = page.first == self.next_first()
            && (page.total, page.last_action, page.coins) == (self.0.total, self.0.last_action, self.0.coins);
        if page.first == 0 {
            self.0 = page;
        } else if follows && !page.items.is_empty() {
            self.0.items.extend(page.items);
        } else {
            self.0 = Inventory::default();
            return None;
        }
        (self.0.items.len() >= self.0.total as usize).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::payload::Item;

    use super::*;

    fn page(first: u32, count: u32, total: u32, last_action: u64) -> Inventory {
        let items = (first..first + count).map(|id| Item { id: id.into(), template: 1, count: 1 });
        Inventory { items: items.collect(), first, total, last_action, ..Inventory::default() }
    }

    #[test]
    fn pages_in_order_make_the_inventory() {
        let mut pages = InventoryPages::default();
        assert_eq!(pages.push(page(0, 2, 5, 1)), None);
        assert_eq!(pages.push(page(2, 2, 5, 1)), None);
        assert_eq!(pages.next_first(), 4);
        let inventory = pages.push(page(4, 1, 5, 1)).unwrap();
        assert_eq!(inventory.items.len(), 5);
        assert_eq!(pages.push(page(0, 0, 0, 2)), Some(page(0, 0, 0, 2)), "an empty inventory is one page");
    }

    #[test]
    fn page_of_another_state_begins_anew() {
        let mut pages = InventoryPages::default();
        pages.push(page(0, 2, 4, 1));
        assert_eq!(pages.push(page(2, 2, 4, 2)), None, "the inventory has changed between the pages");
        assert_eq!(pages.next_first(), 0);
        pages.push(page(0, 2, 4, 2));
        assert_eq!(pages.push(page(2, 2, 4, 2)).unwrap().items.len(), 4);
    }
}
