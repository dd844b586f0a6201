//! Draws the screen: the map around the avatar on the left; health, inventory and trade on the right; chat below.

use std::{collections::VecDeque, time::Instant};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};
use shardkeep_client::{
    game::{Entity, View},
    wire::{
        movement::EntityKind,
        payload::{Item, Trade, TradeSide},
    },
};
use shardkeep_types::CELL_MM;

/// Metres per column. A row shows twice as many, because characters are twice as high as wide.
const METRES_PER_COLUMN: f64 = 1.0;

pub fn item_name(template: u32) -> &'static str {
    match template {
        1 => "apple",
        2 => "hide",
        3 => "fang",
        4 => "sword",
        5 => "shield",
        6 => "lantern",
        _ => "thing",
    }
}

/// The parts of the screen that are not in the player's view of the world.
pub struct Panels<'a> {
    /// The line that the person types, if any.
    pub typed: Option<&'a str>,
    pub log: &'a VecDeque<String>,
    pub trade: Option<&'a Trade>,
}

pub fn draw(frame: &mut Frame<'_>, view: &View, panels: &Panels<'_>) {
    let [top, bottom] = Layout::vertical([Constraint::Min(10), Constraint::Length(9)]).areas(frame.area());
    let [map, side] = Layout::horizontal([Constraint::Min(30), Constraint::Length(30)]).areas(top);
    let [chat, input] = Layout::vertical([Constraint::Min(3), Constraint::Length(1)]).areas(bottom);
    draw_map(frame, map, view);
    draw_side(frame, side, view, panels);
    draw_chat(frame, chat, panels);
    let line = match panels.typed {
        Some(typed) => Line::from(format!("> {typed}▏")).yellow(),
        None => Line::from("Enter to talk (/z zone, /all world, /w name)").dark_gray(),
    };
    frame.render_widget(line, input);
}

fn draw_map(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let title = match (view.position(), &view.placed) {
        (Some(at), Some(placed)) => {
            format!(
                " {} · {:.0} m east, {:.0} m north ",
                placed.zone,
                f64::from(at.x_mm) / 1e3,
                f64::from(at.y_mm) / 1e3
            )
        }
        _ => " … ".into(),
    };
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some(here) = view.position() else { return };
    let now = Instant::now();
    let place = |x_mm: i32, y_mm: i32| {
        let dx = f64::from(x_mm - here.x_mm) / 1e3 / METRES_PER_COLUMN;
        let dy = f64::from(y_mm - here.y_mm) / 1e3 / METRES_PER_COLUMN / 2.0;
        let column = f64::from(inner.width) / 2.0 + dx;
        let row = f64::from(inner.height) / 2.0 - dy;
        let inside =
            (0.0..f64::from(inner.width)).contains(&column) && (0.0..f64::from(inner.height)).contains(&row);
        // Inside the area, so it fits.
        inside.then(|| (inner.x + column as u16, inner.y + row as u16))
    };
    grid(frame, inner, &place, here.x_mm, here.y_mm);
    let mut entities: Vec<&Entity> = view.others().collect();
    // Items below creatures below avatars.
    entities.sort_by_key(|it| match it.kind {
        EntityKind::GroundItem => 0,
        EntityKind::Creature => 1,
        EntityKind::Avatar => 2,
    });
    for entity in entities {
        let at = entity.position_at(now);
        let Some((x, y)) = place(at.x_mm, at.y_mm) else { continue };
        let (symbol, colour, label) = appearance(entity);
        put_text(frame, inner, x, y, symbol, Style::new().fg(colour).bold());
        if let Some(label) = label {
            put_text(frame, inner, x.saturating_add(1), y, label, Style::new().fg(colour));
        }
    }
    if let Some((x, y)) = place(here.x_mm, here.y_mm) {
        put_text(frame, inner, x, y, "@", Style::new().fg(Color::White).bold());
    }
}

/// Draws faint dots at fixed places, so that the person sees the avatar move.
fn grid(
    frame: &mut Frame<'_>,
    inner: Rect,
    place: &impl Fn(i32, i32) -> Option<(u16, u16)>,
    x_mm: i32,
    y_mm: i32,
) {
    let quarter = CELL_MM / 4;
    for column in -30..30 {
        for row in -30..30 {
            let (x, y) = ((x_mm / quarter + column) * quarter, (y_mm / quarter + row) * quarter);
            let corner = x % CELL_MM == 0 && y % CELL_MM == 0;
            if let Some((x, y)) = place(x, y) {
                put_text(
                    frame,
                    inner,
                    x,
                    y,
                    if corner { "+" } else { "·" },
                    Style::new().fg(Color::DarkGray),
                );
            }
        }
    }
}

fn appearance(entity: &Entity) -> (&'static str, Color, Option<&str>) {
    match entity.kind {
        EntityKind::Avatar => ("@", Color::Cyan, Some(entity.name.as_str())),
        EntityKind::GroundItem => ("!", Color::Yellow, None),
        EntityKind::Creature => match entity.template {
            1 => ("r", Color::Green, None),
            2 => ("b", Color::Magenta, None),
            _ => ("w", Color::Red, None),
        },
    }
}

fn put_text(frame: &mut Frame<'_>, inner: Rect, x: u16, y: u16, text: &str, style: Style) {
    if x < inner.right() && y < inner.bottom() {
        let room = usize::from(inner.right() - x);
        frame.buffer_mut().set_stringn(x, y, text, room, style);
    }
}

fn draw_side(frame: &mut Frame<'_>, area: Rect, view: &View, panels: &Panels<'_>) {
    let mut lines = Vec::new();
    if let Some(avatar) = &view.avatar {
        lines.push(Line::from(format!("health {} / {}", avatar.health, avatar.max_health)));
    }
    if let Some(inventory) = &view.inventory {
        lines.push(Line::from(format!("coins  {}", inventory.coins)));
        lines.push(Line::from(format!("exp    {}", inventory.experience)));
        lines.push(Line::default());
        lines.extend(inventory.items.iter().zip(1..).map(|(item, number)| item_line(number, item)));
    }
    if let Some(trade) = panels.trade {
        lines.push(Line::default());
        lines.push(Line::from(format!("trade with {}", trade.partner_name)).yellow());
        lines.push(side_line("you give", trade.own_side.as_ref()));
        lines.push(side_line("you get", trade.partner_side.as_ref()));
    }
    let panel = Paragraph::new(lines).block(Block::bordered().title(" you ")).wrap(Wrap { trim: false });
    frame.render_widget(panel, area);
}

fn item_line(number: usize, item: &Item) -> Line<'static> {
    let count = if item.count > 1 { format!(" × {}", item.count) } else { String::new() };
    Line::from(vec![
        Span::from(format!("{number} ")).dark_gray(),
        Span::from(format!("{}{count}", item_name(item.template))),
    ])
}

fn side_line(what: &str, side: Option<&TradeSide>) -> Line<'static> {
    let Some(side) = side else { return Line::from(format!("{what}: nothing")) };
    let mut parts: Vec<String> = side.items.iter().map(|item| item_name(item.template).to_owned()).collect();
    if side.coins > 0 {
        parts.push(format!("{} coins", side.coins));
    }
    let parts = if parts.is_empty() { "nothing".into() } else { parts.join(", ") };
    let confirmed = if side.confirmed { " ✓" } else { "" };
    Line::from(format!("{what}: {parts}{confirmed}"))
}

fn draw_chat(frame: &mut Frame<'_>, area: Rect, panels: &Panels<'_>) {
    let room = usize::from(area.height.saturating_sub(2));
    let skipped = panels.log.len().saturating_sub(room);
    let lines: Vec<Line<'_>> =
        panels.log.iter().skip(skipped).map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" talk ")), area);
}
