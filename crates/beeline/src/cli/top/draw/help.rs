//! The keys, over everything else.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::theme::Theme;
use crate::cli::top::keys::HELP;

/// What the columns mean.
pub(super) const NOTES: [&str; 6] = [
    "PATH    the client's direction/the server's: socket is redirected, kernel goes",
    "        through the stack, start sent nothing yet, mixed is both",
    "SENT/S  by the client; BACK/S by the server; BYTES/S by both",
    "MSG/S   redirected messages; those through the stack are not counted",
    "REASON  why a direction is not redirected; Enter tells what it means",
    "The lines at the top count connections that came and went in between, too.",
];

pub(super) fn draw(frame: &mut Frame<'_>, theme: Theme) {
    let mut lines: Vec<_> = HELP
        .iter()
        .map(|(key, does)| {
            let key = Span::styled(format!("{key:<16}"), theme.header());
            Line::from(vec![key, (*does).into()])
        })
        .collect();
    lines.push(Line::default());
    lines.extend(NOTES.map(Line::raw));
    let area = middle(frame.area(), lines.len() as u16 + 2);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" keys (any key goes on) ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn middle(area: Rect, height: u16) -> Rect {
    area.centered(Constraint::Max(82), Constraint::Max(height))
}
