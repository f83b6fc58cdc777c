//! Processors that the kernel did not start at boot (`maxcpus=`).

use std::fs;
use std::path::Path;

const FOLDER: &str = "/sys/devices/system/cpu";

/// Starts them all. One that does not start is none of the agent's business: the kernel has said why.
pub(super) fn start_all() {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for entry in entries.flatten() {
        let switch = entry.path().join("online");
        if is_off(&switch)
            && let Err(error) = fs::write(&switch, "1")
        {
            eprintln!("peerdma agent: {}: {error}", switch.display());
        }
    }
}

fn is_off(switch: &Path) -> bool {
    fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0")
}
