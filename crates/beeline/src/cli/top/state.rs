//! What the screen shows, without a screen: samples and actions change it, drawing reads it.

use datapath::abi::Mode;

use super::rows::{self, Key, Pair, Row};
use crate::observe::filter::Filter;
use crate::observe::rates::{Live, Sample};
use crate::observe::sort::Sort;

/// Lines that a page moves.
const PAGE: isize = 10;

/// Histograms of one connection are scrolled by no more.
const HISTOGRAM_LINES: isize = 80;

/// In the order in which one key goes through them.
const SORTS: [Sort; 5] = [
    Sort::Rate,
    Sort::Messages,
    Sort::Bytes,
    Sort::Age,
    Sort::Process,
];

/// What a line of the list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Connections,
    Pairs,
}

/// What is shown of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Facts,
    /// From a line on.
    Histograms(u16),
}

/// What the keys go to.
#[derive(Debug, Clone)]
pub(super) enum Focus {
    List,
    /// One connection as it was last; it may be gone.
    Detail {
        live: Box<Live>,
        gone: bool,
        part: Part,
    },
    /// The filter that is being written, and what was wrong with it.
    Prompt {
        text: String,
        error: Option<String>,
    },
}

/// What a user can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Help,
    Freeze,
    SwitchView,
    NextSort,
    Reverse,
    Move(isize),
    Page(isize),
    First,
    Last,
    Open,
    Back,
    Ask,
    Write(char),
    Erase,
    EraseAll,
}

impl Part {
    fn switch(&mut self) {
        *self = match self {
            Self::Facts => Self::Histograms(0),
            Self::Histograms(_) => Self::Facts,
        };
    }

    fn scroll(&mut self, lines: isize) {
        if let Self::Histograms(line) = self {
            let moved = isize::try_from(*line).unwrap_or(0) + lines;
            *line = u16::try_from(moved.clamp(0, HISTOGRAM_LINES)).unwrap_or(0);
        }
    }
}

/// Everything that can be seen.
pub(super) struct State {
    pub sample: Sample,
    pub mode: Mode,
    pub rows: Vec<Row>,
    pub view: View,
    pub sort: Sort,
    pub reverse: bool,
    pub filter: Filter,
    /// Only connections of this pair are listed.
    pub pair: Option<Pair>,
    pub focus: Focus,
    pub frozen: bool,
    pub help: bool,
    pub quit: bool,
    selected: Option<Key>,
}

impl State {
    pub(super) fn new(filter: Filter, sort: Sort) -> Self {
        Self {
            sample: Sample::default(),
            mode: Mode::On,
            rows: Vec::new(),
            view: View::Connections,
            sort,
            reverse: false,
            filter,
            pair: None,
            focus: Focus::List,
            frozen: false,
            help: false,
            quit: false,
            selected: None,
        }
    }

    /// Shows a new sample, unless the user wants to look at the last one.
    pub(super) fn see(&mut self, sample: Sample, mode: Mode) {
        if self.frozen {
            return;
        }
        (self.sample, self.mode) = (sample, mode);
        if let Focus::Detail { live, gone, .. } = &mut self.focus {
            let same = |other: &&Live| other.conn.handshake == live.conn.handshake;
            match self.sample.live.iter().find(same) {
                Some(now) => **live = now.clone(),
                None => *gone = true,
            }
        }
        self.list();
    }

    /// The line that the keys act on.
    pub(super) fn selected(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows.iter().position(|row| row.key == *selected)
    }

    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::Quit => self.quit = true,
            Action::Help => self.help = !self.help,
            Action::Freeze => self.frozen = !self.frozen,
            Action::SwitchView => self.switch_view(),
            Action::NextSort => self.next_sort(),
            Action::Reverse => self.reverse = !self.reverse,
            Action::Move(lines) => self.move_by(lines),
            Action::Page(pages) => self.move_by(pages * PAGE),
            Action::First => self.select(0),
            Action::Last => self.select(self.rows.len().saturating_sub(1)),
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Ask => self.ask(),
            Action::Write(_) | Action::Erase | Action::EraseAll => self.write(action),
        }
        self.list();
    }

    /// Makes the lines anew; the selected one stays selected wherever it goes, and the first is
    /// when it is gone.
    fn list(&mut self) {
        let was = self.selected();
        let fits = |live: &&Live| {
            let pair = self.pair.as_ref();
            self.filter.shows(&live.conn) && pair.is_none_or(|pair| *pair == Pair::of(live))
        };
        let shown = self.sample.live.iter().filter(fits);
        self.rows = match self.view {
            View::Connections => shown.map(Row::of).collect(),
            View::Pairs => rows::pairs(shown),
        };
        self.sort.apply(&mut self.rows, self.reverse);
        if self.selected().is_none() {
            self.select(was.unwrap_or(0));
        }
    }

    /// Selects that line, or the last.
    fn select(&mut self, line: usize) {
        let line = line.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(line).map(|row| row.key.clone());
    }

    fn move_by(&mut self, lines: isize) {
        if let Focus::Detail { part, .. } = &mut self.focus {
            part.scroll(lines);
            return;
        }
        let from = self.selected().unwrap_or(0);
        self.select(from.saturating_add_signed(lines));
    }

    fn switch_view(&mut self) {
        if let Focus::Detail { part, .. } = &mut self.focus {
            part.switch();
            return;
        }
        self.pair = None;
        self.view = match self.view {
            View::Connections => View::Pairs,
            View::Pairs => View::Connections,
        };
    }

    fn next_sort(&mut self) {
        let now = SORTS.iter().position(|sort| *sort == self.sort);
        self.sort = SORTS[now.map_or(0, |now| now + 1) % SORTS.len()];
    }

    fn open(&mut self) {
        match &self.focus {
            Focus::Prompt { text, .. } => match text.parse() {
                Ok(filter) => {
                    self.filter = filter;
                    self.focus = Focus::List;
                }
                Err(error) => {
                    let (text, error) = (text.clone(), Some(error.to_string()));
                    self.focus = Focus::Prompt { text, error };
                }
            },
            Focus::List => self.open_selected(),
            Focus::Detail { .. } => {}
        }
    }

    fn open_selected(&mut self) {
        match &self.selected {
            Some(Key::Pair(pair)) => {
                self.pair = Some(pair.clone());
                self.view = View::Connections;
                self.selected = None;
            }
            Some(Key::Connection(conn)) => {
                let mut live = self.sample.live.iter();
                if let Some(live) = live.find(|live| live.conn.handshake == *conn) {
                    let live = Box::new(live.clone());
                    self.focus = Focus::Detail {
                        live,
                        gone: false,
                        part: Part::Facts,
                    };
                }
            }
            None => {}
        }
    }

    /// To where one came from.
    fn back(&mut self) {
        if !matches!(self.focus, Focus::List) {
            self.focus = Focus::List;
        } else if let Some(pair) = self.pair.take() {
            self.view = View::Pairs;
            self.selected = Some(Key::Pair(pair));
        }
    }

    fn ask(&mut self) {
        let text = self.filter.to_string();
        self.focus = Focus::Prompt { text, error: None };
    }

    fn write(&mut self, action: Action) {
        let Focus::Prompt { text, error } = &mut self.focus else {
            return;
        };
        *error = None;
        match action {
            Action::Write(letter) => text.push(letter),
            Action::EraseAll => text.clear(),
            _ => drop(text.pop()),
        }
    }
}

#[cfg(test)]
mod tests;
