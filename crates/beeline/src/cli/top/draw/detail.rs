//! Everything about one connection.

use datapath::abi::Reason;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::Paragraph;

use super::histograms;
use super::text::{bars, bytes, count, paths};
use super::theme::Theme;
use crate::cli::top::state::Part;
use crate::observe::conns::End;
use crate::observe::rates::{Live, Rate};
use crate::observe::route::Route;

/// Bars of what both directions send.
const TREND: usize = 30;

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    live: &Live,
    gone: bool,
    part: Part,
    theme: Theme,
) {
    let [first, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(summary(live, gone, theme), first);
    match part {
        Part::Facts => facts(frame, rest, live, theme),
        Part::Histograms(line) => histograms::draw(frame, rest, &live.conn, line, theme),
    }
}

fn facts(frame: &mut Frame<'_>, area: Rect, live: &Live, theme: Theme) {
    let mut text = Text::default();
    let conn = &live.conn;
    for (role, end, rate) in [
        ("client", &conn.client, live.client_rate),
        ("server", &conn.server, live.server_rate),
    ] {
        text.push_line("");
        match end {
            Some(end) => text.extend(describe(role, end, rate, theme)),
            None => text.push_line(format!("{role}  closed")),
        }
    }
    frame.render_widget(Paragraph::new(text), area);
}

fn summary(live: &Live, gone: bool, theme: Theme) -> Line<'static> {
    let route = |end: &Option<End>| {
        let end = end.as_ref();
        end.map_or(Route::Start, |end| Route::of_path(end.path))
    };
    let (client, server) = (route(&live.conn.client), route(&live.conn.server));
    let age = std::time::Duration::from_secs(live.conn.age_seconds as u64);
    let age = humantime::format_duration(age);
    let mut line = Line::from(vec![
        Span::styled("connection", theme.header()),
        format!("  {age} old, path ").into(),
        Span::styled(paths(client, server), theme.route(client.and(server))),
    ]);
    if gone {
        line.push_span(Span::styled("  CLOSED, as it was last", theme.error()));
    }
    line.push_span(format!("  {}", bars(&live.trend, TREND)));
    line
}

fn describe(role: &'static str, end: &End, rate: Rate, theme: Theme) -> Vec<Line<'static>> {
    let workload = &end.workload;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let fact = |name: &str, text: String| Line::raw(format!("  {name:<10}{text}"));
    let reason = end.reason.map_or("-".into(), explained);
    vec![
        Line::from(vec![
            Span::styled(role, theme.header()),
            format!("    {}", workload.label()).into(),
        ]),
        fact("cgroup", or_none(&workload.cgroup)),
        fact(
            "address",
            format!("{}, and the peer as {}", end.local, end.remote),
        ),
        fact(
            "socket",
            format!(
                "netns {}, uid {}, cookie {}",
                end.netns, end.uid, end.cookie
            ),
        ),
        Line::from(vec![
            "  sends     ".into(),
            Span::styled(end.path, theme.route(Route::of_path(end.path))),
            format!(
                ", {}/s, {} msg/s redirected",
                bytes(rate.bytes()),
                count(rate.redirected_messages)
            )
            .into(),
        ]),
        fact(
            "so far",
            format!(
                "{} redirected in {} messages, {} over the kernel path",
                bytes(end.redirected_bytes as f64),
                end.redirected_messages,
                bytes(end.kernel_bytes as f64)
            ),
        ),
        fact(
            "unread",
            format!(
                "{} redirected to it; kernel path: smoothed RTT {} us",
                bytes(end.unread_bytes.into()),
                end.smoothed_rtt_us
            ),
        ),
        fact("reason", reason),
    ]
}

/// A reason with its meaning.
fn explained(name: &'static str) -> String {
    let known = Reason::ALL.iter().find(|reason| reason.name() == name);
    known.map_or(name.into(), |reason| format!("{name}: {}", reason.about()))
}
