//! The list: as many columns as there is room for.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as TableRow, Table, TableState};

use super::text::{age, bars, bytes, count, fit, paths};
use super::theme::Theme;
use crate::cli::top::rows::{Party, Row};
use crate::cli::top::state::{State, View};
use crate::observe::sort::Ranked;

/// Room of a name that more columns leave.
const NAME: u16 = 18;

/// In the order of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Client,
    Server,
    Connections,
    Path,
    Rate,
    Out,
    Back,
    Messages,
    Total,
    Age,
    Reason,
    Trend,
}

impl Column {
    /// `None`: it shares what the others leave.
    fn width(self) -> Option<u16> {
        match self {
            Self::Client | Self::Server => None,
            Self::Connections | Self::Age => Some(5),
            Self::Path => Some(13),
            Self::Rate | Self::Out | Self::Back | Self::Total => Some(8),
            Self::Messages => Some(6),
            Self::Reason => Some(12),
            Self::Trend => Some(12),
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::Client => "CLIENT",
            Self::Server => "SERVER",
            Self::Connections => "CONNS",
            Self::Path => "PATH",
            Self::Rate => "BYTES/S",
            Self::Out => "SENT/S",
            Self::Back => "BACK/S",
            Self::Messages => "MSG/S",
            Self::Total => "BYTES",
            Self::Age => "AGE",
            Self::Reason => "REASON",
            Self::Trend => "BYTES/S",
        }
    }

    fn is_figure(self) -> bool {
        let text = [
            Self::Client,
            Self::Server,
            Self::Path,
            Self::Reason,
            Self::Trend,
        ];
        !text.contains(&self)
    }

    fn cell(self, row: &Row, width: u16, theme: Theme) -> Cell<'static> {
        let width = usize::from(width);
        let total = row.client.rate + row.server.rate;
        let text = match self {
            Self::Client => name(&row.client, width),
            Self::Server => name(&row.server, width),
            Self::Connections => row.connections.to_string(),
            Self::Path => paths(row.client.route, row.server.route),
            Self::Rate => bytes(total.bytes()),
            Self::Out => bytes(row.client.rate.bytes()),
            Self::Back => bytes(row.server.rate.bytes()),
            Self::Messages => count(total.redirected_messages),
            Self::Total => bytes(row.bytes() as f64),
            Self::Age => age(row.age),
            Self::Reason => fit(&row.reasons.join(","), "", width),
            Self::Trend => bars(&row.trend, width),
        };
        let line = Line::raw(text);
        let line = if self.is_figure() {
            line.right_aligned()
        } else {
            line
        };
        match self {
            Self::Path => {
                Cell::new(line).style(theme.route(row.client.route.and(row.server.route)))
            }
            _ => Cell::new(line),
        }
    }
}

fn name(party: &Party, width: usize) -> String {
    let port = party
        .address
        .map_or(String::new(), |addr| format!(":{}", addr.port()));
    let long = party.name.chars().count() + port.len();
    let name = if long <= width {
        &party.name
    } else {
        &party.short
    };
    fit(name, &port, width)
}

/// What has to be there, and what there is room for beside names of [`NAME`] characters.
fn columns(width: u16, view: View) -> Vec<Column> {
    use Column::{
        Age, Back, Client, Connections, Messages, Out, Path, Rate, Reason, Server, Total, Trend,
    };
    let mut columns = vec![Client, Server, Path, Rate, Messages, Reason];
    if view == View::Pairs {
        columns.push(Connections);
    }
    for more in [&[Out, Back][..], &[Trend], &[Age], &[Total]] {
        let mut with = columns.clone();
        with.extend(more);
        if with.contains(&Out) {
            with.retain(|column| *column != Rate);
        }
        if room(&with, width) >= NAME {
            columns = with;
        }
    }
    columns.sort_unstable();
    columns
}

/// What the other columns leave to each of the two names.
fn room(columns: &[Column], width: u16) -> u16 {
    let gaps = columns.len() as u16 - 1;
    let fixed: u16 = columns.iter().filter_map(|column| column.width()).sum();
    width.saturating_sub(fixed + gaps) / 2
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    if state.rows.is_empty() {
        let said = if state.sample.live.is_empty() {
            "no connections are enrolled"
        } else {
            "nothing fits; / changes the filter"
        };
        frame.render_widget(Line::raw(said), area);
        return;
    }
    let columns = columns(area.width, state.view);
    let room = room(&columns, area.width);
    let widths = columns.iter().map(|column| column.width().unwrap_or(room));
    let widths: Vec<_> = widths.collect();
    let header = columns.iter().map(|column| {
        let line = Line::raw(column.header());
        if column.is_figure() {
            line.right_aligned()
        } else {
            line
        }
    });
    let rows = state.rows.iter().map(|row| {
        let cells = columns.iter().zip(&widths);
        TableRow::new(cells.map(|(column, width)| column.cell(row, *width, theme)))
    });
    let table = Table::new(rows, widths.iter().copied().map(Constraint::Length))
        .header(TableRow::new(header).style(theme.header()))
        .row_highlight_style(theme.selected());
    let mut selected = TableState::new().with_selected(state.selected());
    frame.render_stateful_widget(table, area, &mut selected);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_fits_and_leaves_room_for_names() {
        for (view, least) in [(View::Connections, NAME), (View::Pairs, NAME - 4)] {
            for width in 80..250 {
                let room = room(&columns(width, view), width);
                assert!(room >= least, "{view:?} {width}: {room}");
            }
        }
    }

    #[test]
    fn a_wider_screen_shows_more() {
        let counts = [80, 120, 250].map(|width| columns(width, View::Connections).len());
        assert_eq!(counts, [6, 10, 10]);
    }
}
