//! `beeline top`

mod draw;
mod keys;
mod rows;
mod state;
mod terminal;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use datapath::Maps;
use ratatui::crossterm::event::Event;

use self::state::State;
use self::terminal::Screen;
use super::filter;
use crate::instance::Instance;
use crate::observe::picture::Camera;
use crate::observe::rates::Meter;
use crate::observe::sort::Sort;

/// How long a signal may go unnoticed.
const BEAT: Duration = Duration::from_millis(100);

/// Watch connections, or pairs of workloads, and what they send a second.
///
/// Keys choose the order, filter, freeze and open a connection: ? shows them. Without colours if
/// NO_COLOR is set. `beeline conns` prints the same once, for scripts.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What comes first
    #[arg(long, value_enum, value_name = "ORDER", default_value = "rate")]
    sort: Sort,

    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,

    #[command(flatten)]
    filter: filter::ConnFilter,
}

/// Shorter ones would show what looking costs.
fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    allowed
        .contains(&time)
        .then_some(time)
        .ok_or("it needs 100ms to 1h".into())
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    if !io::stdout().is_terminal() {
        bail!(
            "top needs a terminal to draw on, and its output is none: use `beeline conns`, or `conns --json`"
        );
    }
    let watch = Watch::begin(instance)?;
    let stop = Arc::<AtomicBool>::default();
    let on_signal = stop.clone();
    ctrlc::set_handler(move || on_signal.store(true, Ordering::Relaxed))
        .context("cannot handle signals")?;
    let state = State::new(args.filter.filter(), args.sort);
    // Given back before an error is printed.
    let mut screen = Screen::enter()?;
    let ended = until_quit(&mut screen, watch, state, args.interval, &stop);
    drop(screen);
    ended.map(|()| ExitCode::SUCCESS)
}

fn until_quit(
    screen: &mut Screen,
    mut watch: Watch<'_>,
    mut state: State,
    interval: Duration,
    stop: &AtomicBool,
) -> Result<()> {
    let mut next = Instant::now();
    while !state.quit && !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            watch.look(&mut state)?;
            next = Instant::now() + interval;
            screen.show(&state)?;
        }
        let time = next.saturating_duration_since(Instant::now()).min(BEAT);
        if let Some(event) = screen.wait(time)? {
            if let Event::Key(key) = event
                && let Some(action) = keys::action(key, &state)
            {
                state.apply(action);
            }
            screen.show(&state)?;
        }
    }
    Ok(())
}

/// Looks at a datapath again and again.
struct Watch<'a> {
    instance: &'a Instance,
    maps: Maps,
    camera: Camera,
    meter: Meter,
}

impl<'a> Watch<'a> {
    fn begin(instance: &'a Instance) -> Result<Self> {
        let maps = Maps::open(&instance.pins())?;
        Ok(Self {
            instance,
            camera: Camera::with_histograms(instance, &maps)?,
            maps,
            meter: Meter::default(),
        })
    }

    fn look(&mut self, state: &mut State) -> Result<()> {
        if !self.instance.pins().exist() {
            bail!("Beeline was detached: there is nothing left to watch (start it: `beeline run`)");
        }
        let picture = self.camera.look(&self.maps)?;
        let sample = self.meter.measure(picture, Instant::now());
        state.see(sample, self.maps.mode()?);
        Ok(())
    }
}
