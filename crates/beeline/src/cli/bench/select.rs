//! What the user wants measured.

use anyhow::{Result, bail, ensure};

use super::cells::{self, Cell, Placement};
use super::scale;
use super::tools::Tool;
use crate::cli::measure::bed::Topology;
use crate::cli::measure::host::Cores;
use crate::cli::measure::traffic::Load;

/// The dimensions; all that are not given have one value.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to measure (every combination of the values given)")]
pub(super) struct Selection {
    /// Ways between the two ends [default: bridge]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    topology: Vec<Topology>,

    /// Services in the node's rules, for instance 0,100,1000,5000; the one that is called is the
    /// last that the rules look at [default: 100]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(0..=20_000))]
    services: Vec<u16>,

    /// Our own loads [default: rr, or none with --tool]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    load: Vec<Load>,

    /// Programs that make the load
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    tool: Vec<Tool>,

    /// Bytes of a request or write: 1 to 1024K, K for 1024 [default: 64, or what suits the program]
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,

    /// Connections at once, for instance 1,8,64,512 [default: 1]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = connections)]
    connections: Vec<usize>,

    /// Cores of the two ends [default: same]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    placement: Vec<Placement>,

    /// Connections that are held open, for instance 10,1000,100000: what setting them up takes, a round
    /// trip beside them, their memory and the agent; over a bridge with 100 services, whatever the other
    /// options say [default: none, but 10 to 100000 in the standard set]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = scale_number)]
    scale: Vec<usize>,
}

/// What is going to be measured, and what is not.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cells: Vec<Cell>,
    /// Numbers of connections that are held open.
    pub(super) scale: Vec<usize>,
    /// What of the standard set this host cannot do, and why.
    pub(super) left_out: Vec<String>,
}

impl Selection {
    /// The cells, those on the same pods next to each other.
    ///
    /// # Errors
    /// When a program that was asked for is missing, or a second core.
    pub(super) fn plan(&self, cores: Cores) -> Result<Plan> {
        if self.names_no_cell() && self.scale.is_empty() {
            return Ok(standard(cores));
        }
        let cells = if self.names_no_cell() {
            Vec::new()
        } else {
            self.product()
        };
        for cell in &cells {
            if let Some(why) = impossible(cell, cores) {
                bail!("cannot measure {}: {why}", cell.title());
            }
        }
        for connections in &self.scale {
            if let Some(why) = scale::obstacle(*connections) {
                bail!("cannot hold {connections} connections: {why}");
            }
        }
        ensure!(
            self.names_no_cell() || !cells.is_empty(),
            "none of the programs has such a load"
        );
        Ok(Plan {
            cells,
            scale: self.scale.clone(),
            left_out: Vec::new(),
        })
    }

    fn names_no_cell(&self) -> bool {
        self.topology.is_empty()
            && self.services.is_empty()
            && self.load.is_empty()
            && self.tool.is_empty()
            && self.size.is_empty()
            && self.connections.is_empty()
            && self.placement.is_empty()
    }

    fn product(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for topology in or(&self.topology, Topology::Bridge) {
            for services in or(&self.services, 100) {
                for placement in or(&self.placement, Placement::Same) {
                    for (load, tool, size) in self.loads() {
                        for connections in or(&self.connections, 1) {
                            let able = tool.map(|tool: Tool| tool.able(size, connections));
                            let (size, connections) = able.unwrap_or((size, connections));
                            let cell = Cell {
                                topology,
                                services,
                                load,
                                tool,
                                size,
                                connections,
                                placement,
                            };
                            if !cells.contains(&cell) {
                                cells.push(cell);
                            }
                        }
                    }
                }
            }
        }
        cells
    }

    fn loads(&self) -> Vec<(Load, Option<Tool>, usize)> {
        let ours = match &self.load[..] {
            [] if self.tool.is_empty() => vec![Load::Rr],
            loads => loads.to_vec(),
        };
        let mut loads: Vec<_> = ours.iter().map(|load| (*load, None, 64)).collect();
        for tool in &self.tool {
            loads.extend(
                tool.loads()
                    .iter()
                    .map(|load| (*load, Some(*tool), tool.size())),
            );
        }
        let sizes = |usual| or(&self.size, usual);
        let sized = loads.into_iter().flat_map(|(load, tool, usual)| {
            sizes(usual).into_iter().map(move |size| (load, tool, size))
        });
        sized.collect()
    }
}

/// The standard set without what this host cannot do.
fn standard(cores: Cores) -> Plan {
    let (mut cells, mut left_out) = (Vec::new(), Vec::new());
    for cell in cells::standard() {
        match impossible(&cell, cores) {
            None => cells.push(cell),
            Some(why) if left_out.contains(&why) => {}
            Some(why) => left_out.push(why),
        }
    }
    let mut scale = Vec::new();
    for connections in scale::STANDARD {
        match scale::obstacle(connections) {
            None => scale.push(connections),
            Some(why) => left_out.push(format!("{connections} connections held open: {why}")),
        }
    }
    Plan {
        cells,
        scale,
        left_out,
    }
}

fn impossible(cell: &Cell, cores: Cores) -> Option<String> {
    if cell.placement == Placement::Separate && cores.shared() {
        return Some("separate cores need two cores that this process may use".into());
    }
    let (program, package) = cell.tool?.missing()?;
    Some(format!(
        "{program} is not installed (Debian's package {package})"
    ))
}

fn or<T: Copy>(given: &[T], usual: T) -> Vec<T> {
    if given.is_empty() {
        vec![usual]
    } else {
        given.to_vec()
    }
}

fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.trim_end_matches("iB").strip_suffix(['K', 'k']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    let size = number
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(unit));
    size.filter(|size| (1..=1 << 20).contains(size))
        .ok_or_else(|| "a size is 1 to 1024K bytes, such as 64 or 16K".into())
}

fn connections(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=4096).contains(n));
    number.ok_or_else(|| "from 1 to 4096 connections".into())
}

fn scale_number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    number.ok_or_else(|| "from 1 to 1000000 connections".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_none() {
        assert_eq!(
            ["1", "64", "16K", "64KiB"].map(size),
            [Ok(1), Ok(64), Ok(16 << 10), Ok(64 << 10)]
        );
        for wrong in ["0", "2000K", "1M", "", "K", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
