//! What the guest sees of its hardware: configuration space, topology, the kernel's view, and the
//! other device.

use super::Kind::Positive;
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{DEVICE, VENDOR};
use crate::sys::config_space::{ConfigSpace, capability, extended};
use crate::sys::kernel_log::complaints;
use crate::sys::pci::{Function, Resource};
use crate::uapi;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const CASES: &[Case] = &[
    Case::new("system", "boot-messages", Positive, &[], boot_messages),
    Case::new("system", "configuration-space", Positive, &[], configuration_space),
    Case::new("system", "windows-and-bars", Positive, &[], windows_and_bars),
    Case::new("system", "iommu-groups", Positive, &[Need::Peers, Need::Translated], iommu_groups),
    Case::new(
        "system",
        "path-for-peer-to-peer",
        Positive,
        &[Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")],
        distance,
    ),
    Case::new("system", "lspci", Positive, &[], lspci),
    Case::new(
        "system",
        "virtio-rng",
        Positive,
        &[Need::File("/dev/hwrng", "CONFIG_HW_RANDOM_VIRTIO")],
        random_bytes,
    ),
];

/// Nothing in the kernel's log speaks against our machine. What is tolerated, and why, stands in `sys::kernel_log`.
fn boot_messages(bench: &mut Bench<'_>) -> Verdict {
    ensure!(!bench.boot.is_empty(), "the kernel's log cannot be read (/dev/kmsg)");
    let found = complaints(bench.boot, &[]);
    let list: Vec<_> = found.iter().map(|record| record.text.as_str()).collect();
    ensure!(list.is_empty(), "the kernel complained before the first test:\n{}", list.join("\n"));
    Ok(())
}

/// The peer devices on the bus, bound or not.
fn peers(bench: &mut Bench<'_>) -> Result<Vec<Function>, Stop> {
    let planned = bench.hello()?.map_or(2, |hello| hello.peers.len());
    let peers: Vec<_> =
        Function::all()?.into_iter().filter(|function| function.is(VENDOR, DEVICE)).collect();
    ensure!(
        peers.len() >= planned,
        "there are {} peer devices on the bus, not {planned}",
        peers.len()
    );
    Ok(peers)
}

/// Registers of the PCI Express capability (PCIe 6.0, 7.5.3), offsets from its start.
mod express {
    pub(super) const CAPABILITIES: usize = 0x02;
    pub(super) const DEVICE_CAPABILITIES: usize = 0x04;
    pub(super) const DEVICE_CONTROL: usize = 0x08;
    pub(super) const TYPE_ENDPOINT: u16 = 0;
    pub(super) const TYPE_ROOT_PORT: u16 = 4;
    pub(super) const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
}

fn port_type(space: &ConfigSpace, express: usize) -> u16 {
    space.u16(express + self::express::CAPABILITIES) >> 4 & 0xf
}

/// Maximum payload size in use, as the field's code (0 is 128 bytes).
fn payload(space: &ConfigSpace, express: usize) -> u16 {
    space.u16(express + self::express::DEVICE_CONTROL) >> 5 & 7
}

fn configuration_space(bench: &mut Bench<'_>) -> Verdict {
    for peer in peers(bench)? {
        let name = &peer.name;
        let space = peer.config_space()?;
        ensure!(
            space.len() == 4096,
            "{name}: configuration space has {} bytes instead of 4096",
            space.len()
        );
        let lists = space.capabilities().and_then(|_| space.extended_capabilities());
        lists.map_err(|why| Stop::Fail(format!("{name}: {why}")))?;
        let need = |id, what| {
            space.find(id).ok_or_else(|| Stop::Fail(format!("{name}: no {what} capability")))
        };
        let express = need(capability::PCI_EXPRESS, "PCI Express")?;
        need(capability::POWER_MANAGEMENT, "power management")?;
        ensure!(
            port_type(&space, express) == express::TYPE_ENDPOINT,
            "{name}: device/port type {} is not an endpoint",
            port_type(&space, express)
        );
        let device = space.u32(express + express::DEVICE_CAPABILITIES);
        ensure!(
            device & express::FUNCTION_LEVEL_RESET != 0,
            "{name}: no function level reset (device capabilities {device:#x})"
        );
        ensure!(
            payload(&space, express) <= (device & 7) as u16,
            "{name}: MPS in use exceeds what the device can"
        );

        // Message control of MSI-X (7.7.2.2): table size less one, and the enable bit.
        let msix = need(capability::MSI_X, "MSI-X")?;
        let control = space.u16(msix + 2);
        ensure!(
            control & 0x7ff >= 1,
            "{name}: MSI-X has a single vector, but there are at least two channels"
        );
        if peer.driver().is_some() {
            ensure!(control & 0x8000 != 0, "{name}: a driver is bound and MSI-X is off");
        }
        for (id, what) in [
            (extended::AER, "advanced error reporting"),
            (extended::RESIZABLE_BAR, "resizable BAR"),
        ] {
            ensure!(space.find_extended(id).is_some(), "{name}: no {what} capability");
        }

        let port =
            peer.upstream().ok_or_else(|| Stop::Fail(format!("{name}: no port above it")))?;
        let above = port.config_space()?;
        let port_express = above
            .find(capability::PCI_EXPRESS)
            .ok_or_else(|| Stop::Fail(format!("{}: no PCI Express capability", port.name)))?;
        ensure!(
            port_type(&above, port_express) != express::TYPE_ROOT_PORT
                || above.find_extended(extended::AER).is_some(),
            "{}: a root port without advanced error reporting",
            port.name
        );
        // A larger payload than the other end of the link accepts is an error on every packet (2.2.2).
        let (here, there) = (payload(&space, express), payload(&above, port_express));
        ensure!(
            here == there,
            "{name} sends payloads of code {here}, {} of code {there}",
            port.name
        );
    }
    Ok(())
}

/// Memory resources only: bit 9 of the kernel's flags.
fn memory(resources: Vec<Resource>) -> Vec<Resource> {
    const MEMORY: u64 = 0x200;
    resources.into_iter().filter(|resource| resource.flags & MEMORY != 0).collect()
}

fn windows_and_bars(bench: &mut Bench<'_>) -> Verdict {
    let mut all: Vec<(String, Resource)> = Vec::new();
    for peer in peers(bench)? {
        let name = &peer.name;
        let bars = memory(peer.resources()?);
        let bar = |index| bars.iter().find(|bar| bar.index == index);
        let local = bar(2).ok_or_else(|| Stop::Fail(format!("{name}: BAR 2 is not assigned")))?;
        let flags = Resource::PREFETCH | Resource::MEM_64;
        ensure!(
            local.flags & flags == flags,
            "{name}: BAR 2 is not 64-bit prefetchable (flags {:#x})",
            local.flags
        );
        ensure!(bar(0).is_some() && bar(4).is_some(), "{name}: BAR 0 or BAR 4 is not assigned");
        if let Some(port) = peer.upstream() {
            let windows = memory(port.resources()?);
            for bar in &bars {
                let held = windows.iter().any(|window| window.index > 6 && window.holds(bar));
                ensure!(held, "{name}: BAR {} lies in no window of {}", bar.index, port.name);
            }
        }
        all.extend(bars.into_iter().map(|bar| (name.clone(), bar)));
    }
    for (number, (name, one)) in all.iter().enumerate() {
        for (other_name, other) in &all[number + 1..] {
            ensure!(
                !one.overlaps(other),
                "BAR {} of {name} and BAR {} of {other_name} overlap",
                one.index,
                other.index
            );
        }
    }
    Ok(())
}

/// Each peer alone in its group: otherwise both share one set of mappings and a mistake with them shows nowhere.
fn iommu_groups(bench: &mut Bench<'_>) -> Verdict {
    let mut groups = Vec::new();
    for instance in 0..2 {
        let function = bench.peer(instance)?.function();
        let group = function.iommu_group();
        groups.push(
            group.ok_or_else(|| Stop::Fail(format!("{} is in no IOMMU group", function.name)))?,
        );
    }
    ensure!(groups[0] != groups[1], "both peers are in IOMMU group {}", groups[0]);
    Ok(())
}

/// The kernel finds a path from each peer to the other's memory.
fn distance(bench: &mut Bench<'_>) -> Verdict {
    let (peer0, peer1) = bench.take_peers()?;
    for (owner, client) in [(&peer0, &peer1), (&peer1, &peer0)] {
        let distance = owner.distance(client)?;
        ensure!(
            distance >= 0,
            "the kernel has no path for peer-to-peer DMA by {} into {}",
            client.name(),
            owner.name()
        );
    }
    Ok(())
}

/// What lspci prints about all functions has no sign of something that it could not make sense of.
fn lspci(_bench: &mut Bench<'_>) -> Verdict {
    const SIGNS: &[&str] = &[
        "!!!",
        "<access denied>",
        "<chain looped>",
        "<chain broken>",
        "<unassigned>",
        "[virtual]",
        "Unknown header type",
        "rev ff",
    ];
    let Some(program) = pciutils_lspci() else {
        return Err(Stop::Skip(
            "there is no lspci in this guest but busybox's, if that (pciutils)".into(),
        ));
    };
    let output = Command::new(program).args(["-n", "-vvv"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "lspci failed: {}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        ensure!(!SIGNS.iter().any(|sign| line.contains(sign)), "lspci says: {}", line.trim());
    }
    Ok(())
}

/// The lspci of pciutils: busybox has a command of that name which shows next to nothing.
fn pciutils_lspci() -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .into_iter()
        .map(|folder| Path::new(folder).join("lspci"))
        .find(|path| path.canonicalize().is_ok_and(|real| !real.ends_with("busybox")))
}

/// The entropy device answers, with something else each time.
fn random_bytes(_bench: &mut Bench<'_>) -> Verdict {
    let current = crate::sys::read("/sys/class/misc/hw_random/rng_current")?;
    if !current.starts_with("virtio_rng") {
        return Err(Stop::Skip(format!(
            "the kernel's entropy source is {current:?} (CONFIG_HW_RANDOM_VIRTIO)"
        )));
    }
    let mut file = std::fs::File::open("/dev/hwrng")?;
    let (mut first, mut second) = ([0; 64], [0; 64]);
    file.read_exact(&mut first)?;
    file.read_exact(&mut second)?;
    ensure!(first != second && first != [0; 64], "the entropy device gives the same bytes twice");
    Ok(())
}
