//! Colours, and how to do without them.

use ratatui::style::{Color, Modifier, Style};

use crate::observe::route::Route;

/// How things look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::top) enum Theme {
    Colours,
    /// Bold and reversed alone.
    Plain,
}

impl Theme {
    /// As <https://no-color.org> has it: any value of NO_COLOR but an empty one asks for no colours.
    pub(in crate::cli::top) fn of_environment() -> Self {
        match std::env::var_os("NO_COLOR") {
            Some(value) if !value.is_empty() => Self::Plain,
            _ => Self::Colours,
        }
    }

    pub(super) fn title(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(super) fn header(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn error(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn route(self, route: Route) -> Style {
        match route {
            Route::Start => Style::new(),
            Route::Socket => self.colour(Color::Green),
            Route::Mixed | Route::Kernel => self.colour(Color::Yellow),
        }
    }

    fn colour(self, colour: Color) -> Style {
        match self {
            Self::Colours => Style::new().fg(colour),
            Self::Plain => Style::new(),
        }
    }
}
