//! What one connection sent, by size.

use datapath::abi::Hist;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use crate::cli::plot;
use crate::observe::conns::{Connection, End};
use crate::observe::hist::View;

/// Columns of a bar, at most; bound and count have 26.
const BAR: u16 = 40;
const BESIDE_BAR: u16 = 26;

/// Both directions beside each other, from a line on.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, conn: &Connection, from: u16, theme: Theme) {
    let halves = Layout::horizontal([Constraint::Fill(1); 2])
        .spacing(1)
        .areas::<2>(area);
    let ends = [("client", &conn.client), ("server", &conn.server)];
    for (half, (role, end)) in halves.into_iter().zip(ends) {
        let text = match end {
            Some(end) => sent(role, end, half.width, theme),
            None => Text::raw(format!("\n{role}  closed")),
        };
        frame.render_widget(Paragraph::new(text).scroll((from, 0)), half);
    }
}

fn sent(role: &str, end: &End, width: u16, theme: Theme) -> Text<'static> {
    let bar = width.saturating_sub(BESIDE_BAR).min(BAR);
    let histograms = end.histograms();
    let mut text = Text::default();
    text.push_line("");
    text.push_line(Line::styled(format!("sent by the {role}"), theme.header()));
    for kind in Hist::ALL {
        let view = View::of(*kind, &histograms[*kind]);
        if view.count > 0 {
            text.push_line(Line::raw(""));
            text.push_line(Line::styled(kind.name(), theme.title()));
            text.push_line(Line::raw(plot::sums(&view)));
            text.extend(plot::lines(&view, bar.into()).map(Line::raw));
        }
    }
    if text.lines.len() == 2 {
        text.push_line("nothing was counted");
    }
    text
}
