//! The terminal as a screen, and given back as it was: at the end, on an error, and on a panic.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use super::draw::{self, Theme};
use super::state::State;

/// Gives the terminal back on drop; a panic does before it prints its message.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    theme: Theme,
}

impl Screen {
    pub(super) fn enter() -> Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore());
        Ok(Self {
            terminal: terminal.context("cannot use the terminal as a screen")?,
            theme: Theme::of_environment(),
        })
    }

    pub(super) fn show(&mut self, state: &State) -> Result<()> {
        let theme = self.theme;
        let drawn = self.terminal.draw(|frame| draw::draw(frame, state, theme));
        drawn.map(drop).context("cannot write to the terminal")
    }

    /// What the user did, if anything within that time.
    pub(super) fn wait(&self, time: Duration) -> Result<Option<Event>> {
        let read = || event::poll(time)?.then(event::read).transpose();
        read().context("cannot read from the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has done it: again, it would put the cursor back over the message.
        if !thread::panicking() {
            ratatui::restore();
        }
    }
}
