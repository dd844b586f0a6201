//! Tests of the stored layout of a world.

use shardkeep_types::{CellRect, Epoch, SectorId};

use super::*;

on_both_engines! {
    layout_is_stored_and_loaded_in_pages,
    stale_term_and_stale_revision_change_nothing,
    removed_space_number_is_never_used_again,
    invalid_layout_change_is_refused,
}

fn space(id: u32) -> Space {
    Space { id: SpaceId(id), map: "meadow".to_owned(), closing: false, tick_hz: 20, width: 32, height: 32 }
}

fn sector(id: u32, x0: u16) -> Sector {
    Sector {
        id: SectorId(id),
        cells: CellRect { space: SpaceId(1), x0, y0: 0, x1: x0 + 16, y1: 32 },
        owner: None,
        epoch: Epoch(0),
        pinned: None,
    }
}

/// The first layout of the world: space 1 with two sectors.
fn first(term: Term) -> LayoutChange {
    LayoutChange {
        world: WORLD,
        term,
        revision: 0,
        next_space: 2,
        next_sector: 3,
        spaces: vec![space(1)],
        sectors: vec![sector(1, 0), sector(2, 16)],
        removed_spaces: Vec::new(),
        removed_sectors: Vec::new(),
    }
}

/// A change of nothing, after `revision`.
fn after(revision: u64, term: Term) -> LayoutChange {
    LayoutChange { revision, spaces: Vec::new(), sectors: Vec::new(), ..first(term) }
}

async fn load_all(game: &Game, limit: usize) -> (LayoutHead, Vec<Space>, Vec<Sector>) {
    let (mut spaces, mut sectors, mut cursor) = (Vec::new(), Vec::new(), None);
    loop {
        let page = game.load_layout(WORLD, cursor, limit).await.unwrap();
        spaces.extend(page.spaces);
        sectors.extend(page.sectors);
        cursor = page.next;
        if cursor.is_none() {
            return (page.head.unwrap(), spaces, sectors);
        }
    }
}

fn refused(result: Result<u64, GameError>) -> Refusal {
    match result {
        Err(GameError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn layout_is_stored_and_loaded_in_pages(game: &Game) {
    let term = term(game).await;
    assert_eq!(game.load_layout(WORLD, None, 10).await.unwrap(), LayoutPage::default());
    assert_eq!(game.store_layout(&first(term)).await.unwrap(), 1);
    assert_eq!(game.store_layout(&first(term)).await.unwrap(), 1, "a repeat gets the same answer");
    let owned = Sector {
        owner: Some(zone("west")),
        epoch: Epoch(1),
        pinned: Some("west".to_owned()),
        ..sector(2, 16)
    };
    let change = LayoutChange {
        next_space: 3,
        next_sector: 4,
        spaces: vec![space(2), Space { closing: true, ..space(1) }],
        sectors: vec![owned.clone(), sector(3, 0)],
        removed_sectors: vec![SectorId(1)],
        ..after(1, term)
    };
    assert_eq!(game.store_layout(&change).await.unwrap(), 2);
    let head = LayoutHead { revision: 2, next_space: 3, next_sector: 4 };
    let expected = (head, vec![Space { closing: true, ..space(1) }, space(2)], vec![owned, sector(3, 0)]);
    for limit in [1, 2, 10] {
        assert_eq!(load_all(game, limit).await, expected, "in pages of {limit}");
    }
    assert_eq!(game.load_layout(WorldId(2), None, 10).await.unwrap(), LayoutPage::default());
}

async fn stale_term_and_stale_revision_change_nothing(game: &Game) {
    let old = term(game).await;
    game.store_layout(&first(old)).await.unwrap();
    game.store_layout(&after(1, old)).await.unwrap();
    assert_eq!(refused(game.store_layout(&first(old)).await), Refusal::StaleRevision(2));
    assert_eq!(refused(game.store_layout(&after(9, old)).await), Refusal::StaleRevision(2));
    let bid = LeadershipBid { world: WORLD, holder: "world-1".to_owned(), incarnation: 2, ttl_ms: 60_000 };
    let new = game.lead(&bid).await.unwrap().term;
    assert_eq!(refused(game.store_layout(&after(2, old)).await), Refusal::StaleTerm(new));
    // The last change is one of the earlier term, and no repeat.
    assert_eq!(refused(game.store_layout(&after(1, new)).await), Refusal::StaleRevision(2));
    let (head, spaces, sectors) = load_all(game, 10).await;
    assert_eq!((head.revision, spaces.len(), sectors.len()), (2, 1, 2));
    assert_eq!(game.store_layout(&after(2, new)).await.unwrap(), 3);
}

async fn removed_space_number_is_never_used_again(game: &Game) {
    let term = term(game).await;
    game.store_layout(&first(term)).await.unwrap();
    let create = LayoutChange { next_space: 3, spaces: vec![space(2)], ..after(1, term) };
    game.store_layout(&create).await.unwrap();
    let remove = LayoutChange { next_space: 3, removed_spaces: vec![SpaceId(2)], ..after(2, term) };
    game.store_layout(&remove).await.unwrap();
    let again = LayoutChange { next_space: 4, spaces: vec![space(2)], ..after(3, term) };
    assert!(matches!(refused(game.store_layout(&again).await), Refusal::Invalid(_)));
    let lower = LayoutChange { next_space: 2, ..after(3, term) };
    assert!(matches!(refused(game.store_layout(&lower).await), Refusal::Invalid(_)));
    let (head, spaces, _) = load_all(game, 10).await;
    assert_eq!((head.revision, head.next_space, spaces), (3, 3, vec![space(1)]));
}

async fn invalid_layout_change_is_refused(game: &Game) {
    let term = term(game).await;
    game.store_layout(&first(term)).await.unwrap();
    let owned = Sector { epoch: Epoch(5), ..sector(1, 0) };
    game.store_layout(&LayoutChange { sectors: vec![owned], ..after(1, term) }).await.unwrap();
    let empty = Sector { cells: CellRect { x1: 0, ..sector(1, 0).cells }, ..sector(1, 0) };
    let invalid = [
        ("epoch falls", LayoutChange { sectors: vec![sector(1, 0)], ..after(2, term) }),
        ("twice", LayoutChange { sectors: vec![sector(2, 0), sector(2, 0)], ..after(2, term) }),
        ("number beyond the next", LayoutChange { sectors: vec![sector(3, 0)], ..after(2, term) }),
        ("number zero", LayoutChange { spaces: vec![space(0)], ..after(2, term) }),
        ("no cells", LayoutChange { sectors: vec![empty], ..after(2, term) }),
        (
            "too many rows",
            LayoutChange { removed_sectors: vec![SectorId(1); MAX_LAYOUT_ROWS + 1], ..after(2, term) },
        ),
    ];
    for (why, change) in invalid {
        assert!(matches!(refused(game.store_layout(&change).await), Refusal::Invalid(_)), "{why}");
    }
    assert_eq!(load_all(game, 10).await.0.revision, 2);
}
