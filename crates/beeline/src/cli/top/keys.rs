//! What a key means.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{Action, Focus, State};

/// Keys and what they do, as the help shows them.
pub(super) const HELP: &[(&str, &str)] = &[
    (
        "up, down, j, k",
        "choose a line; also page up and down, home and end",
    ),
    (
        "Enter",
        "a connection: all about it; a pair: its connections",
    ),
    ("Esc", "back"),
    (
        "Tab",
        "connections, or pairs of workloads; of one its histograms",
    ),
    ("s", "sort by rate, messages, bytes, age or process"),
    ("r", "reverse the order"),
    (
        "/",
        "filter: words of processes, containers, cgroups; addresses;",
    ),
    ("", "port:80,443  path:kernel,mixed  reason:queue_full"),
    ("space", "freeze, and go on"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// `None` for a key that means nothing there.
pub(super) fn action(key: KeyEvent, state: &State) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return control(key.code);
    }
    if state.help {
        return Some(Action::Help);
    }
    match (key.code, &state.focus) {
        (KeyCode::Enter, _) => Some(Action::Open),
        (KeyCode::Esc, _) => Some(Action::Back),
        (code, Focus::Prompt { .. }) => writing(code),
        (code, Focus::List) => listing(code).or_else(|| anywhere(code)),
        (code, Focus::Detail { .. }) => reading(code).or_else(|| anywhere(code)),
    }
}

fn control(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char('c') => Some(Action::Quit),
        KeyCode::Char('u') => Some(Action::EraseAll),
        _ => None,
    }
}

fn writing(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char(letter) => Some(Action::Write(letter)),
        KeyCode::Backspace => Some(Action::Erase),
        _ => None,
    }
}

fn anywhere(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char('q') => Some(Action::Quit),
        KeyCode::Char('?') => Some(Action::Help),
        KeyCode::Char(' ') => Some(Action::Freeze),
        _ => None,
    }
}

/// What moves the list, and what is shown of one connection.
fn reading(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Move(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Move(1)),
        KeyCode::PageUp => Some(Action::Page(-1)),
        KeyCode::PageDown => Some(Action::Page(1)),
        KeyCode::Tab => Some(Action::SwitchView),
        _ => None,
    }
}

fn listing(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Home => Some(Action::First),
        KeyCode::End => Some(Action::Last),
        KeyCode::Char('s') => Some(Action::NextSort),
        KeyCode::Char('r') => Some(Action::Reverse),
        KeyCode::Char('/') => Some(Action::Ask),
        _ => reading(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::observe::filter::Filter;
    use crate::observe::sort::Sort;

    fn press(code: KeyCode, state: &State) -> Option<Action> {
        action(KeyEvent::new(code, KeyModifiers::NONE), state)
    }

    fn list_and_prompt() -> [State; 2] {
        let mut states = [(); 2].map(|()| State::new(Filter::default(), Sort::Rate));
        states[1].apply(Action::Ask);
        states
    }

    #[test]
    fn letters_are_keys_in_the_list_and_text_in_the_prompt() {
        let [list, prompt] = list_and_prompt();
        for letter in ['q', 's', ' ', '?', '/'] {
            let key = KeyCode::Char(letter);
            assert_eq!(press(key, &prompt), Some(Action::Write(letter)));
            assert_ne!(press(key, &list), None);
        }
        assert_eq!(press(KeyCode::Esc, &prompt), Some(Action::Back));
    }

    #[test]
    fn any_key_closes_the_help_and_does_nothing_else() {
        let [mut list, _] = list_and_prompt();
        list.apply(Action::Help);
        for key in ['x', 'q', ' '].map(KeyCode::Char) {
            assert_eq!(press(key, &list), Some(Action::Help));
        }
    }

    #[test]
    fn ctrl_c_quits_everywhere() {
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for state in list_and_prompt() {
            assert_eq!(action(key, &state), Some(Action::Quit));
        }
    }
}
