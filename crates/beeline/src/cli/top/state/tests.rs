//! What the keys do, without a screen.

use super::*;
use crate::observe::fixture;

fn state() -> State {
    let mut state = State::new(Filter::default(), Sort::Process);
    state.see(
        sample(&[("app", "redis"), ("nginx", "app"), ("nginx", "app")]),
        Mode::On,
    );
    state
}

fn sample(conns: &[(&str, &str)]) -> Sample {
    Sample {
        live: fixture::live(conns),
        ..Sample::default()
    }
}

fn names(state: &State) -> Vec<&str> {
    state
        .rows
        .iter()
        .map(|row| row.client.name.as_str())
        .collect()
}

fn write(state: &mut State, text: &str) {
    state.apply(Action::Ask);
    state.apply(Action::EraseAll);
    text.chars()
        .for_each(|letter| state.apply(Action::Write(letter)));
    state.apply(Action::Open);
}

#[test]
fn the_selected_line_stays_selected_wherever_it_goes() {
    let mut state = state();
    assert_eq!(state.selected(), Some(0));
    state.apply(Action::Reverse);
    assert_eq!(state.selected(), Some(2));
    state.apply(Action::Move(-1));
    state.apply(Action::Reverse);
    assert!(state.selected() > Some(0));
}

#[test]
fn when_the_selected_line_goes_its_neighbour_is_selected() {
    let mut state = state();
    state.apply(Action::Last);
    state.see(sample(&[("app", "redis"), ("nginx", "app")]), Mode::On);
    assert_eq!(state.selected(), Some(1));
    state.see(sample(&[]), Mode::On);
    assert_eq!(state.selected(), None);
    for action in [
        Action::Move(1),
        Action::Page(-1),
        Action::Open,
        Action::First,
    ] {
        state.apply(action);
    }
    assert_eq!(state.selected(), None);
}

#[test]
fn moving_stops_at_both_ends() {
    let mut state = state();
    state.apply(Action::Move(-1));
    assert_eq!(state.selected(), Some(0));
    state.apply(Action::Page(1));
    assert_eq!(state.selected(), Some(2));
}

#[test]
fn a_filter_takes_effect_when_it_is_right() {
    let mut state = state();
    write(&mut state, "redis");
    assert_eq!(names(&state), ["app[42]"]);
    write(&mut state, "port:http");
    let Focus::Prompt { text, error } = &state.focus else {
        panic!("it can be mended");
    };
    assert_eq!(text, "port:http");
    assert!(error.as_ref().unwrap().contains("http"));
    state.apply(Action::Erase);
    assert!(matches!(&state.focus, Focus::Prompt { error: None, .. }));
    state.apply(Action::Back);
    assert_eq!(state.filter.to_string(), "redis");
    write(&mut state, "");
    assert_eq!(state.rows.len(), 3);
}

#[test]
fn a_pair_opens_to_its_connections_and_one_of_them_to_all_about_it() {
    let mut state = state();
    state.apply(Action::SwitchView);
    assert_eq!(names(&state), ["app", "nginx"]);
    state.apply(Action::Last);
    state.apply(Action::Open);
    assert_eq!(names(&state), ["nginx[42]", "nginx[42]"]);
    state.apply(Action::Open);
    assert!(matches!(state.focus, Focus::Detail { gone: false, .. }));
    state.see(sample(&[]), Mode::On);
    assert!(matches!(state.focus, Focus::Detail { gone: true, .. }));
    state.apply(Action::Back);
    state.see(sample(&[("app", "redis"), ("nginx", "app")]), Mode::On);
    state.apply(Action::Back);
    assert_eq!(
        (state.view, names(&state)),
        (View::Pairs, vec!["app", "nginx"])
    );
    assert_eq!(state.selected(), Some(1), "where one came from");
}

#[test]
fn frozen_nothing_new_is_seen_but_it_can_be_sorted() {
    let mut state = state();
    state.apply(Action::Freeze);
    state.see(sample(&[]), Mode::Off);
    assert_eq!((state.rows.len(), state.mode), (3, Mode::On));
    state.apply(Action::Reverse);
    assert_eq!(names(&state)[0], "nginx[42]");
    state.apply(Action::Freeze);
    state.see(sample(&[]), Mode::Off);
    assert_eq!((state.rows.len(), state.mode), (0, Mode::Off));
}

#[test]
fn one_key_goes_through_all_orders() {
    let mut state = state();
    let mut seen = Vec::new();
    for _ in SORTS {
        seen.push(state.sort.name());
        state.apply(Action::NextSort);
    }
    assert_eq!(seen, ["process", "rate", "messages", "bytes", "age"]);
    assert_eq!(state.sort, Sort::Process);
}
