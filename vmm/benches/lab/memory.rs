//! What a whole lab takes besides the memory that it lends to the guest.

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm::assembly::LabConfig;

use crate::report::{Figure, Report};
use crate::rig::NoInterrupts;

pub fn run(report: &mut Report) {
    let before = own_memory();
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 512 << 20)]).expect("guest RAM");
    let lab = LabConfig::default()
        .build(&ram, Box::new(NoInterrupts), std::io::empty())
        .expect("the default lab");
    let after = own_memory();
    drop(lab);
    let (Some(before), Some(after)) = (before, after) else { return };
    report.add(Figure {
        name: "resident memory of the default lab",
        value: after.saturating_sub(before) as f64 / 1024.0,
        unit: "MiB",
        compared_with: "the process before; a run's whole VMM is in target/vm-test/summary.json",
        goal: 32.0,
        rate: None,
    });
}

/// Resident memory that is not shared with a guest, in KiB.
fn own_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(field("RssAnon:")? + field("RssFile:")?)
}
