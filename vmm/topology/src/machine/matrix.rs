//! Every pair of a machine's devices at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::report::Kernel;
use super::{RealMachine, Verdict};
use crate::explain::map_id;
use crate::linux::MapType;

/// The table.
#[derive(Debug)]
pub struct Matrix<'r, 'm> {
    pub(super) machine: &'r RealMachine<'m>,
    /// The devices, in the order of the tree, so that those below one switch stand together.
    pub(super) devices: Vec<usize>,
    /// A row for each client, a column for each provider; none where both are the same.
    pub(super) cells: Vec<Vec<Option<Cell>>>,
}

/// A pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What Linux decides.
    pub verdict: Verdict,
    /// One line.
    pub reason: String,
}

/// What `explain --all --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MatrixReport {
    /// `peerdma-matrix/1`.
    pub schema: &'static str,
    /// The kernel.
    pub kernel: Kernel,
    /// What to know before anything else.
    pub warnings: Vec<String>,
    /// The devices, in the order of rows and columns.
    pub devices: Vec<Device>,
    /// All pairs.
    pub pairs: Vec<Pair>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// What it is called: `gpu0`.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Vendor and device ID, if they are known.
    pub id: Option<String>,
    /// IOMMU group, if it is known.
    pub iommu_group: Option<u32>,
    /// NUMA node, if it is known.
    pub numa_node: Option<u32>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The device that does DMA.
    pub client: String,
    /// The device that has the memory.
    pub provider: String,
    /// `bus-address`, `through-host-bridge`, `not-supported`, or `unknown`.
    pub map_type: &'static str,
    /// Distance; -1 where Linux refuses, none where the answer is unknown.
    pub distance: Option<i32>,
    /// Why.
    pub reason: String,
}

impl Cell {
    /// In three characters or so.
    pub(super) fn symbol(&self) -> String {
        let distance = self.verdict.cases.first().map_or(0, |case| case.decision.distance);
        match self.verdict.certain() {
            Some(MapType::BusAddress) => format!("B{distance}"),
            Some(MapType::ThroughHostBridge) => format!("H{distance}"),
            Some(MapType::NotSupported) => "-".into(),
            None => "?".into(),
        }
    }
}

/// What the symbols mean.
const LEGEND: &str = "\
B4  bus address, 4 steps: a switch turns requests around    H4  through the host bridge
-   Linux refuses                                           ?   depends on what is not known
";

impl<'m> RealMachine<'m> {
    /// All pairs of `devices`.
    pub fn matrix(&self, devices: Vec<usize>) -> Matrix<'_, 'm> {
        let cell = |a: usize, b: usize| {
            (a != b).then(|| {
                let verdict = self.decide(a, b);
                let reason = self.reason(&verdict, a, b);
                Cell { verdict, reason }
            })
        };
        let row = |a: &usize| devices.iter().map(|b| cell(*a, *b)).collect();
        let cells = devices.iter().map(row).collect();
        Matrix { machine: self, devices, cells }
    }

    fn reason(&self, verdict: &Verdict, a: usize, b: usize) -> String {
        if let ([only], Some(_)) = (verdict.cases.as_slice(), verdict.certain()) {
            return self.because(only);
        }
        let mut maps: Vec<_> = verdict.cases.iter().map(|case| case.decision.map.name()).collect();
        if verdict.open {
            maps.push(MapType::BusAddress.name());
        }
        maps.sort_unstable();
        maps.dedup();
        format!("{}; it depends on {}", maps.join(", or "), self.doubts(verdict, a, b).join("; "))
    }
}

impl Matrix<'_, '_> {
    /// The table for people; below it one line for each cell, equal ones of both directions once.
    pub fn to_text(&self) -> String {
        let name = |at: &usize| self.machine.name(*at);
        let width = self.devices.iter().map(|at| name(at).len()).max().unwrap_or(0).max(4);
        let mut text = format!("{:width$}", "");
        for at in &self.devices {
            let _ = write!(text, "  {:>5}", name(at));
        }
        text.push('\n');
        for (at, row) in self.devices.iter().zip(&self.cells) {
            let _ = write!(text, "{:width$}", name(at));
            for (column, cell) in self.devices.iter().zip(row) {
                let symbol = cell.as_ref().map_or_else(|| ".".into(), Cell::symbol);
                let _ = write!(text, "  {symbol:>0$}", name(column).len().max(5));
            }
            let function = self.machine.function(*at);
            let _ = writeln!(text, "   {}", function.address);
        }
        text.push('\n');
        text += LEGEND;
        text.push('\n');
        for (reason, pairs) in self.reasons() {
            match pairs.as_slice() {
                [only] => {
                    let _ = writeln!(text, "{only}: {reason}");
                }
                all => {
                    let _ = writeln!(text, "{reason}:");
                    list(&mut text, all);
                }
            }
        }
        text
    }

    /// The reasons in the order of the table, each with the pairs that have it.
    fn reasons(&self) -> Vec<(String, Vec<String>)> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut add = |cell: &Cell, a: usize, arrow: &str, b: usize| {
            let pair = format!("{} {arrow} {}", self.machine.name(a), self.machine.name(b));
            let reason = format!("{} {}", cell.symbol(), cell.reason);
            let at = *known.entry(reason.clone()).or_insert_with(|| {
                found.push((reason, Vec::new()));
                found.len() - 1
            });
            found[at].1.push(pair);
        };
        for (row, &a) in self.devices.iter().enumerate() {
            for (column, &b) in self.devices.iter().enumerate().skip(row + 1) {
                let cells = (&self.cells[row][column], &self.cells[column][row]);
                let (Some(there), Some(back)) = cells else { continue };
                // The two directions name the redirecting ports in another order, no more.
                if there.symbol() == back.symbol() {
                    add(there, a, "<->", b);
                } else {
                    add(there, a, "->", b);
                    add(back, b, "->", a);
                }
            }
        }
        found
    }

    /// The table as data.
    pub fn report(&self) -> MatrixReport {
        let device = |at: &usize| {
            let function = self.machine.function(*at);
            let id = function.vendor.zip(function.device);
            Device {
                name: self.machine.name(*at).into(),
                address: function.address.to_string(),
                id: id.map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")),
                iommu_group: function.iommu_group,
                numa_node: function.numa_node,
            }
        };
        let mut pairs = Vec::new();
        for (a, row) in self.devices.iter().zip(&self.cells) {
            for (b, cell) in self.devices.iter().zip(row) {
                let Some(cell) = cell else { continue };
                let map = cell.verdict.certain();
                let distance = cell.verdict.cases.first().map(|case| case.decision.distance);
                pairs.push(Pair {
                    client: self.machine.name(*a).into(),
                    provider: self.machine.name(*b).into(),
                    map_type: map.map_or("unknown", map_id),
                    distance: match map {
                        None => None,
                        Some(MapType::NotSupported) => Some(-1),
                        Some(_) => distance.and_then(|it| i32::try_from(it).ok()),
                    },
                    reason: cell.reason.clone(),
                });
            }
        }
        MatrixReport {
            schema: "peerdma-matrix/1",
            kernel: self.machine.kernel(),
            warnings: self.machine.warnings().to_vec(),
            devices: self.devices.iter().map(device).collect(),
            pairs,
        }
    }
}

/// Pairs, as many to a line as there is room for.
fn list(text: &mut String, pairs: &[String]) {
    const WIDTH: usize = 100;
    let mut line = String::new();
    for pair in pairs {
        if !line.is_empty() && line.len() + pair.len() + 6 > WIDTH {
            let _ = writeln!(text, "    {line},");
            line.clear();
        }
        if !line.is_empty() {
            line += ", ";
        }
        line += pair;
    }
    let _ = writeln!(text, "    {line}");
}
