//! `shardkeep gm sector …` and `shardkeep gm space …`: commands about the layout of a world.

use clap::{Args, Subcommand};
use shardkeep_rpc::gm::{self, command::Command as Action, split_sector::Line};

#[derive(Debug, Subcommand)]
pub enum SectorCommand {
    /// The sectors: space, cells, owner, epoch, avatars
    List {
        #[command(flatten)]
        world: WorldArg,
    },
    /// Move a sector to a zone and pin it there until --unpin, or until the zone drains or dies
    Move {
        sector: u32,
        /// Name of the zone, such as zone-2
        #[arg(required_unless_present = "unpin", conflicts_with = "unpin")]
        zone: Option<String>,
        /// Remove the pin; the sector stays until the load of the zones moves it
        #[arg(long)]
        unpin: bool,
        #[command(flatten)]
        world: WorldArg,
        #[arg(long)]
        reason: String,
    },
    /// Split a sector in two, by default in the middle of its longer side
    Split {
        sector: u32,
        /// The second part begins with this column of cells
        #[arg(long, value_name = "CELL", conflicts_with = "y")]
        x: Option<u32>,
        /// The second part begins with this row of cells
        #[arg(long, value_name = "CELL")]
        y: Option<u32>,
        #[command(flatten)]
        world: WorldArg,
        #[arg(long)]
        reason: String,
    },
    /// Merge two sectors of one zone that form a rectangle; the first number remains
    Merge {
        first: u32,
        second: u32,
        #[command(flatten)]
        world: WorldArg,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum SpaceCommand {
    /// The spaces: map, size, tick rate, sectors, avatars
    List {
        #[command(flatten)]
        world: WorldArg,
    },
    /// Create another instance of a map
    Create {
        map: String,
        /// Ticks per second, 10 to 60; by default as space 1
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        tick_hz: u32,
        #[command(flatten)]
        world: WorldArg,
        #[arg(long)]
        reason: String,
    },
    /// Close a space; avatars inside go to space 1
    Close {
        space: u32,
        #[command(flatten)]
        world: WorldArg,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub struct WorldArg {
    #[arg(long, default_value_t = 1)]
    world: u32,
}

/// The reason and the message of a command.
pub fn sector(command: SectorCommand) -> (String, Action) {
    match command {
        SectorCommand::List { world: WorldArg { world } } => {
            (String::new(), Action::Sectors(gm::Sectors { world }))
        }
        SectorCommand::Move { sector, zone, world: WorldArg { world }, reason, .. } => {
            let zone = zone.unwrap_or_default();
            (reason, Action::MoveSector(gm::MoveSector { world, sector, zone }))
        }
        SectorCommand::Split { sector, x, y, world: WorldArg { world }, reason } => {
            let line = x.map(Line::X).or(y.map(Line::Y));
            (reason, Action::SplitSector(gm::SplitSector { world, sector, line }))
        }
        SectorCommand::Merge { first, second, world: WorldArg { world }, reason } => {
            (reason, Action::MergeSectors(gm::MergeSectors { world, first, second }))
        }
    }
}

/// The reason and the message of a command.
pub fn space(command: SpaceCommand) -> (String, Action) {
    match command {
        SpaceCommand::List { world: WorldArg { world } } => {
            (String::new(), Action::Spaces(gm::Spaces { world }))
        }
        SpaceCommand::Create { map, tick_hz, world: WorldArg { world }, reason } => {
            (reason, Action::CreateSpace(gm::CreateSpace { world, map, tick_hz }))
        }
        SpaceCommand::Close { space, world: WorldArg { world }, reason } => {
            (reason, Action::CloseSpace(gm::CloseSpace { world, space }))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(subcommand)]
        command: SectorCommand,
    }

    fn parsed(line: &[&str]) -> Result<Action, String> {
        let line = CommandLine::try_parse_from([&["sector"], line].concat());
        line.map(|line| sector(line.command).1).map_err(|error| error.to_string())
    }

    #[test]
    fn move_needs_zone_or_unpin() {
        let moved = |zone: &str| {
            Ok(Action::MoveSector(gm::MoveSector { world: 1, sector: 3, zone: zone.to_owned() }))
        };
        assert_eq!(parsed(&["move", "3", "zone-2", "--reason", "load"]), moved("zone-2"));
        assert_eq!(parsed(&["move", "3", "--unpin", "--reason", "load"]), moved(""));
        assert!(parsed(&["move", "3", "--reason", "load"]).unwrap_err().contains("<ZONE>"));
        assert!(parsed(&["move", "3", "zone-2", "--unpin", "--reason", "load"]).is_err());
    }

    #[test]
    fn split_takes_one_axis() {
        let split = |line| Ok(Action::SplitSector(gm::SplitSector { world: 1, sector: 3, line }));
        assert_eq!(parsed(&["split", "3", "--reason", "load"]), split(None));
        assert_eq!(parsed(&["split", "3", "--y", "7", "--reason", "load"]), split(Some(Line::Y(7))));
        assert!(parsed(&["split", "3", "--x", "1", "--y", "7", "--reason", "load"]).is_err());
    }
}
