//! What a state looks like.

mod detail;
mod help;
mod histograms;
mod table;
mod text;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::state::{Focus, Part, State, View};
use crate::observe::rates::Trend;

pub(super) use theme::Theme;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let line = Constraint::Length(1);
    let [title, redirected, kernel, chosen, body, footer] =
        Layout::vertical([line, line, line, line, Constraint::Fill(1), line]).areas(frame.area());
    frame.render_widget(headline(state, theme), title);
    let (total, sample) = (state.sample.total, &state.sample);
    let messages = format!("{} msg/s", text::count(total.redirected_messages));
    let start = total_of("redirected", total.redirected_bytes, &messages);
    frame.render_widget(with_bars(start, &sample.redirected, redirected), redirected);
    let start = total_of("kernel path", total.kernel_bytes, "");
    frame.render_widget(with_bars(start, &sample.kernel, kernel), kernel);
    frame.render_widget(choice(state, theme), chosen);
    match &state.focus {
        Focus::Detail { live, gone, part } => {
            detail::draw(frame, body, live, *gone, *part, theme);
        }
        _ => table::draw(frame, body, state, theme),
    }
    frame.render_widget(keys(state), footer);
    if state.help {
        help::draw(frame, theme);
    }
}

fn headline(state: &State, theme: Theme) -> Line<'static> {
    let connections = state.sample.live.len();
    let mut facts = format!("  {}, {connections} connections", state.mode.name());
    let listed: usize = state.rows.iter().map(|row| row.connections).sum();
    if listed != connections {
        facts += &format!(", {listed} of them listed");
    }
    facts += &format!(", by {}", state.sort.name());
    if state.reverse {
        facts += " reversed";
    }
    let mut line = Line::from(vec![
        Span::styled("beeline top", theme.title()),
        facts.into(),
    ]);
    if state.frozen {
        line.push_span(Span::styled("  FROZEN", theme.error()));
    }
    line
}

fn total_of(name: &str, rate: f64, more: &str) -> String {
    format!("{name:<12}{:>10}/s {more:>12}  ", text::bytes(rate))
}

fn with_bars(start: String, trend: &Trend, area: Rect) -> Line<'static> {
    let room = usize::from(area.width).saturating_sub(start.chars().count());
    Line::raw(start + &text::bars(trend, room))
}

/// What is listed: the filter, or what is being written of it.
fn choice(state: &State, theme: Theme) -> Line<'static> {
    if let Focus::Prompt { text, error } = &state.focus {
        let mut line = Line::from(vec![
            Span::styled("filter: ", theme.header()),
            text.clone().into(),
            Span::styled(" ", theme.selected()),
        ]);
        if let Some(error) = error {
            line.push_span(Span::styled(format!(" {error}"), theme.error()));
        }
        return line;
    }
    let mut said = Vec::new();
    if let Some(pair) = &state.pair {
        said.push(format!("between {} and {}", pair.client, pair.server));
    }
    let filter = state.filter.to_string();
    if !filter.is_empty() {
        said.push(format!("filter: {filter}"));
    }
    Line::styled(said.join("  "), theme.header())
}

fn keys(state: &State) -> Line<'static> {
    let other = match state.view {
        View::Connections => "pairs",
        View::Pairs => "connections",
    };
    Line::raw(match &state.focus {
        Focus::Prompt { .. } => "Enter take  Esc leave as it was  Ctrl-U erase".into(),
        Focus::Detail { part, .. } => {
            let other = match part {
                Part::Facts => "histograms",
                Part::Histograms(_) => "facts",
            };
            format!("Esc back  Tab {other}  space freeze  ? help  q quit")
        }
        Focus::List => {
            let back = if state.pair.is_some() {
                "Esc back  "
            } else {
                ""
            };
            format!(
                "{back}Tab {other}  Enter open  s sort  r reverse  / filter  space freeze  ? help  q quit"
            )
        }
    })
}

#[cfg(test)]
mod tests;
