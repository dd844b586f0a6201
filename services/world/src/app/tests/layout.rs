//! Tests of the layout over terms: it is loaded, stored before it is announced, and loaded again after a conflict.

use super::*;
use crate::domain::partition::LayoutCommand;
use shardkeep_types::SectorId;

fn split(sector: u32) -> LayoutCommand {
    LayoutCommand::Split { sector: SectorId(sector), line: None }
}

#[test]
fn new_term_continues_with_stored_layout() {
    let mut game = Game::new(9);
    game.app.change_layout(split(1)).unwrap();
    game.effects();
    let before = game.stored.clone().unwrap();
    assert_eq!(before.sectors().count(), 3);
    game.lead(2);
    assert_eq!(game.app.change_layout(split(1)), Err(LayoutError::NotLoaded));
    let effects = game.effects();
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Partition).count(), 1);
    assert_eq!(game.app.zones().partition().unwrap().layout(), &before, "nothing has changed");
}

#[test]
fn layout_is_announced_again_when_addresses_become_known() {
    let mut game = Game::new(9);
    game.effects();
    let mut restarted = App::new(WorldConfig::default());
    std::mem::swap(&mut game.app, &mut restarted);
    game.lead(2);
    assert!(game.effects().contains(&Effect::Partition));
    assert!(game.app.zones().get(&owner("a", 1)).is_none(), "the registry has not answered yet");
    game.app.zones_changed(game.now, vec![zone("a", 1, Health::Up), zone("b", 1, Health::Up)]);
    assert!(game.effects().contains(&Effect::Partition));
    game.advance(1);
    assert!(!game.effects().contains(&Effect::Partition));
}

#[test]
fn change_is_announced_after_it_is_stored() {
    let mut game = Game::new(9);
    game.effects();
    let done = game.app.change_layout(split(1)).unwrap();
    let effects = game.app.take_effects();
    assert!(!effects.contains(&Effect::Partition));
    let [Effect::Start(Work::StoreLayout { term, change })] = &effects[..] else {
        panic!("expected one change to store: {effects:?}");
    };
    assert_eq!(change.revision + 1, done.revision);
    game.app.layout_stored(Term(term.0 - 1), done.revision);
    assert!(game.effects().is_empty(), "an answer to an earlier term is ignored");
    game.app.layout_stored(*term, done.revision);
    assert!(game.effects().contains(&Effect::Partition));
    assert_eq!(game.app.zones().partition().unwrap().layout().sectors().count(), 3);
}

#[test]
fn conflict_with_database_loads_layout_again() {
    let mut game = Game::new(9);
    game.effects();
    game.app.change_layout(split(1)).unwrap();
    game.app.take_effects();
    game.app.layout_refused(Term(1));
    let effects = game.effects();
    assert!(effects.contains(&Effect::Partition));
    assert_eq!(game.app.zones().partition().unwrap().layout().sectors().count(), 2, "the split is lost");
}
