//! The options that say what to show, the same for every view.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use datapath::abi::{EventKind, Reason};

use crate::observe::filter::{Address, Filter};
use crate::observe::route::Route;

/// Of connections and events alike.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Show only (several values with commas: one has to fit)")]
struct CommonFilter {
    /// Part of the name of a process, container or cgroup at either end; given again, each has to fit
    #[arg(long, value_name = "TEXT")]
    process: Vec<String>,

    /// Port of either end
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<u16>,

    /// Address of either end, network, or address with port: 10.0.0.1, 10.0.0.0/8, [fd00::1]:80
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    address: Vec<Address>,

    /// Why it is not redirected; `beeline status` tells what each means
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reasons(), hide_possible_values = true)]
    reason: Vec<Reason>,
}

/// Of connections.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Show only (several values with commas: one has to fit)")]
pub(super) struct ConnFilter {
    #[command(flatten)]
    common: CommonFilter,

    /// Path: socket (or redirected), kernel, mixed (one direction each) or start (nothing sent yet)
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    path: Vec<Route>,
}

/// Of events.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Show only (several values with commas: one has to fit)")]
pub(super) struct EventFilter {
    #[command(flatten)]
    common: CommonFilter,

    /// What happened
    #[arg(long, value_name = "EVENT", value_delimiter = ',', value_parser = events())]
    event: Vec<EventKind>,
}

impl CommonFilter {
    fn filter(&self) -> Filter {
        Filter {
            words: self.process.clone(),
            ports: self.port.clone(),
            addresses: self.address.clone(),
            reasons: self.reason.clone(),
            ..Filter::default()
        }
    }
}

impl ConnFilter {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            routes: self.path.clone(),
            ..self.common.filter()
        }
    }
}

impl EventFilter {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            events: self.event.clone(),
            ..self.common.filter()
        }
    }
}

fn reasons() -> impl TypedValueParser<Value = Reason> {
    named(Reason::ALL, Reason::name)
}

fn events() -> impl TypedValueParser<Value = EventKind> {
    named(EventKind::ALL, EventKind::name)
}

/// Takes the names of values, and tells them when it is given another.
fn named<T: Copy + Send + Sync + 'static>(
    values: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let names = values.iter().map(|value| name(*value));
    PossibleValuesParser::new(names).try_map(move |text| {
        let found = values.iter().find(|value| name(**value) == text);
        found.copied().ok_or("it is none of these")
    })
}
