//! Screens of three sizes and kinds.

use datapath::abi::{Hist, Mode};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::cli::top::state::Action;
use crate::observe::filter::Filter;
use crate::observe::fixture;
use crate::observe::rates::{Rate, Sample};
use crate::observe::sort::Sort;

fn state() -> State {
    let mut live = fixture::live(&[
        ("nginx", "redis"),
        ("application", "postgres-worker"),
        ("nginx", "redis"),
    ]);
    live[0].conn.server.as_mut().unwrap().path = "kernel";
    live[0].conn.server.as_mut().unwrap().reason = Some("queue_full");
    let sample = Sample {
        live,
        total: Rate {
            redirected_bytes: 3e9,
            redirected_messages: 52_000.0,
            kernel_bytes: 1024.0,
        },
        redirected: Trend::from([1, 2, 3]),
        kernel: Trend::from([3, 0, 3]),
    };
    let mut state = State::new(Filter::default(), Sort::Rate);
    state.see(sample, Mode::On);
    state
}

fn buffer(state: &State, width: u16, height: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, theme)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(state: &State, width: u16, height: u16) -> Vec<String> {
    let buffer = buffer(state, width, height, Theme::Plain);
    let row =
        |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    buffer
        .content
        .chunks(width.into())
        .map(|cells| row(cells).trim_end().into())
        .collect()
}

#[test]
fn all_that_matters_is_there_at_80_by_24() {
    let lines = lines(&state(), 80, 24);
    let expected = [
        "beeline top  on, 3 connections, by rate",
        "redirected    2.79 GiB/s  52.0k msg/s  ▃▆█",
        "kernel path   1.00 KiB/s               █ █",
        "",
        "CLIENT             SERVER             PATH           BYTES/S  MSG/S REASON",
        "nginx[42]:40002    redis[42]:6379     socket        3.00 KiB     10",
        "application:40001  postgres-wor…:6379 socket        2.00 KiB     10",
        "nginx[42]:40000    redis[42]:6379     socket/kernel 1.00 KiB     10 queue_full",
    ];
    assert_eq!(lines[..8].join("\n"), expected.join("\n"));
    assert!(lines[23].ends_with("q quit"), "{}", lines[23]);
}

#[test]
fn there_is_more_at_120_by_40() {
    let lines = lines(&state(), 120, 40);
    for column in ["SENT/S", "BACK/S", "AGE", "BYTES"] {
        assert!(lines[4].contains(column), "{}", lines[4]);
    }
    assert!(
        lines[7].contains("queue_full") && lines[7].contains("▄█"),
        "{}",
        lines[7]
    );
    assert!(lines[39].ends_with("q quit"));
}

#[test]
fn pairs_are_counted() {
    let mut state = state();
    state.apply(Action::SwitchView);
    let lines = lines(&state, 80, 24);
    assert!(lines[4].contains("CONNS"), "{}", lines[4]);
    let pair = &lines[5];
    for part in [
        "nginx",
        "redis",
        " 2 ",
        "socket/mixed",
        "4.00 KiB",
        "queue_full",
    ] {
        assert!(pair.contains(part), "{part}: {pair}");
    }
}

#[test]
fn without_colours_nothing_has_any_and_the_selected_line_is_reversed() {
    let mut state = state();
    state.apply(Action::Freeze);
    for help in [false, true] {
        state.help = help;
        let plain = buffer(&state, 80, 24, Theme::Plain);
        let coloured =
            |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
        assert!(!plain.content.iter().any(coloured));
        let with = buffer(&state, 80, 24, Theme::Colours);
        assert!(with.content.iter().any(coloured));
    }
    state.help = false;
    let plain = buffer(&state, 80, 24, Theme::Plain);
    assert!(plain[(0, 5)].modifier.contains(Modifier::REVERSED));
    assert!(!plain[(0, 6)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn one_connection_is_told_in_full_at_80_by_24() {
    let mut state = state();
    state.apply(Action::Last);
    state.apply(Action::Open);
    let text = lines(&state, 80, 24).join("\n");
    for part in [
        "path socket/kernel",
        "10.0.0.1:40000, and the peer as 10.0.0.2:6379",
        "/redis.slice",
        "queue_full: the reader is behind",
        "cookie 7",
        "Esc back",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    state.see(Sample::default(), Mode::On);
    assert!(lines(&state, 80, 24).join("\n").contains("CLOSED"));
}

#[test]
fn histograms_of_one_connection_fit_into_80_by_24() {
    let mut state = state();
    let client = state.sample.live[2].conn.client.as_mut().unwrap();
    let tally = client.tally.insert(Box::default());
    tally.slots[Hist::Redirected as usize][8] = 40;
    tally.slots[Hist::Redirected as usize][10] = 10;
    tally.sums[Hist::Redirected as usize] = 5000;
    state.apply(Action::Open);
    state.apply(Action::SwitchView);
    let screen = lines(&state, 80, 24);
    let text = screen.join("\n");
    for part in [
        "sent by the client",
        "redirected_message",
        "50 counted, 100 B on average",
        "128 B          40  ##############\n",
        "512 B          10  ####\n",
        "nothing was counted",
        "Tab facts",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    state.apply(Action::Move(3));
    assert_eq!(lines(&state, 80, 24)[5], screen[8], "scrolled");
    state.apply(Action::Move(-9));
    assert_eq!(lines(&state, 80, 24), screen);
    state.apply(Action::SwitchView);
    assert!(lines(&state, 80, 24).join("\n").contains("Tab histograms"));
}

#[test]
fn the_help_fits_into_80_by_24() {
    let mut state = state();
    state.apply(Action::Help);
    let text = lines(&state, 80, 24).join("\n");
    for (key, does) in crate::cli::top::keys::HELP {
        assert!(text.contains(key) && text.contains(does), "{key}:\n{text}");
    }
    for note in help::NOTES {
        assert!(text.contains(note), "{note}:\n{text}");
    }
}

#[test]
fn a_wrong_filter_is_shown_with_what_is_wrong() {
    let mut state = state();
    state.apply(Action::Ask);
    "port:x"
        .chars()
        .for_each(|letter| state.apply(Action::Write(letter)));
    state.apply(Action::Open);
    assert!(lines(&state, 80, 24)[3].starts_with("filter: port:x  \"x\" is no port"));
}

#[test]
fn no_size_is_too_small() {
    let mut state = state();
    for (width, height) in [(1, 1), (5, 2), (20, 5), (79, 10)] {
        for action in [
            Action::Help,
            Action::Help,
            Action::Open,
            Action::SwitchView,
            Action::Back,
            Action::SwitchView,
        ] {
            buffer(&state, width, height, Theme::Colours);
            state.apply(action);
        }
    }
}
