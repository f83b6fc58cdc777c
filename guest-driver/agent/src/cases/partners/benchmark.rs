//! The cost of mapping, by the kernel's own benchmark: it takes the device from our driver and
//! measures its DMA API.

use super::super::need::Need;
use super::super::{Bench, Stop, Verdict, ensure};
use super::{function, kselftest};
use crate::device::Peer;
use crate::partner::binding::Lent;
use crate::sys::patience::await_that;
use std::time::Duration;

const PROGRAM: &str = "dma_map_benchmark";
const DRIVER: &str = "dma_map_benchmark";

pub(super) const NEEDS: &[Need] = &[
    Need::Vmm,
    Need::Peers,
    Need::File("/sys/bus/pci/drivers/dma_map_benchmark", "CONFIG_DMA_MAP_BENCHMARK"),
];

/// Measures for a second.
pub(super) fn run(bench: &mut Bench<'_>, arguments: &[&str]) -> Verdict {
    const INSTANCE: u32 = 1;
    bench.close_peers();
    let lent = Lent::new(function(INSTANCE as usize)?, DRIVER)?;
    let before = bench.counter("live_mappings")?;
    let output = kselftest::output(PROGRAM, &[&["-s", "1"], arguments].concat())?;
    let mut after = before;
    // Something of the guest's own may be on its way out, before or now.
    let given_back = await_that(Duration::from_secs(10), || -> Result<_, Stop> {
        after = bench.counter("live_mappings")?;
        Ok(after <= before)
    })?;
    lent.give_back(&Peer::path(INSTANCE))?;

    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{PROGRAM} {}:", arguments.join(" "));
    text.lines().for_each(|line| println!("  {line}"));
    if !output.status.success() {
        return Err(Stop::Fail(format!("{PROGRAM}: {}: {text}{errors}", output.status)));
    }
    let (map, unmap) = (figure(&text, "average map")?, figure(&text, "average unmap")?);
    bench.note(format!("map {map} us, unmap {unmap} us"));
    ensure!(
        map > 0.0 && unmap > 0.0,
        "mapping for {map} us and unmapping for {unmap} us are no figures"
    );
    ensure!(given_back, "{before} mappings were alive before the benchmark and {after} after it");
    Ok(())
}

/// The average latency in microseconds in the line with this beginning.
fn figure(text: &str, beginning: &str) -> Result<f64, Stop> {
    let line = text.lines().find_map(|line| line.strip_prefix(beginning));
    let value = line.and_then(|line| {
        line.trim_start().strip_prefix("latency(us):")?.split_whitespace().next()?.parse().ok()
    });
    value.ok_or_else(|| Stop::Fail(format!("{PROGRAM} printed no {beginning} latency:\n{text}")))
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_are_read() {
        let text = "dma mapping benchmark(SINGLE_MODE): threads:1 seconds:1 node:-1 dir:BIDIRECTIONAL granule:1\n\
                    average map latency(us):1.5 standard deviation:0.6\n\
                    average unmap latency(us):23.1 standard deviation:2.0\n";
        assert_eq!(figure(text, "average map").unwrap(), 1.5);
        assert_eq!(figure(text, "average unmap").unwrap(), 23.1);
        assert!(figure("ioctl: Invalid argument\n", "average map").is_err());
    }
}
