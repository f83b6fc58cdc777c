//! What would have become of recorded requests with other ACS controls, host bridges, IOMMU modes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::path::Path;

use bench::{Bench, DATA, NOWHERE, descriptor, open, play};
use device_models::endpoint::peer::regs::{channel, channel_control, flags, opcode};
use device_models::pci::{AcsControl, Bdf};
use peerdma_topology::Topology;
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use peerdma_trace::{Change, RecordOptions, Replay, ReplayError, replay_what_if};

/// Copies from RAM, from peer to peer and into nowhere, below the switch of a preset.
fn record(path: &Path, topology: &str) {
    let config = SystemConfig {
        topology: Topology::load(topology).unwrap(),
        iommu: IommuKind::None,
        local_memory: 1 << 20,
        ..SystemConfig::default()
    };
    let mut bench = Bench::of(path, RecordOptions::default(), config);
    let memory = bench.bar("peer1", 2);
    bench.run(&[
        descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, memory, 0x300),
        descriptor(opcode::COPY, flags::DESTINATION_LOCAL, memory, 0, 0x200),
        descriptor(opcode::COPY, flags::DESTINATION_LOCAL, DATA, 0, 0x100),
    ]);
    bench.register(channel::CTRL, u64::from(channel_control::RESET));
    bench.run(&[descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, NOWHERE, 16)]);
    bench.recording.finish().unwrap();
}

fn ask(path: &Path, changes: &[&str]) -> Result<Replay, ReplayError> {
    let changes: Vec<Change> = changes.iter().map(|change| change.parse().unwrap()).collect();
    replay_what_if(open(path), &changes)
}

fn lines(path: &Path, changes: &[&str]) -> Vec<String> {
    let replay = ask(path, changes).unwrap();
    assert_eq!(replay.difference, None);
    let plain = play(path);
    assert_eq!((replay.events, &replay.findings), (plain.events, &plain.findings));
    let changes = replay.changes.unwrap();
    assert_eq!(changes.count, changes.list.len() as u64);
    let counted: u64 = changes.sums.values().map(|(count, _)| count).sum();
    assert_eq!(counted, changes.count);
    // Numbers of TLPs and addresses are the topology's.
    let short = |line: String| {
        let words = line.split_whitespace().filter(|word| !word.starts_with(['#']));
        let words = words.filter(|word| !word.starts_with("addr="));
        words.collect::<Vec<_>>().join(" ")
    };
    changes.list.iter().map(|changed| short(changed.to_string())).collect()
}

#[test]
fn with_redirection_peer_requests_would_have_gone_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    record(&path, "switch");
    // A write needs the requester's port alone; the completions of a read come from the other one.
    let up = "through-host-bridge to peer1";
    let request = |it: &str| format!("peer0 {it}: bus-address to peer1 -> {up}");
    // No kernel has switched on Upstream Forwarding here.
    let forwarding = "port0.acs=+UF";
    assert_eq!(lines(&path, &["down0.acs=+RR", forwarding]), [request("MWr len=768")]);
    assert_eq!(lines(&path, &["down1.acs=+CR", forwarding]), [request("MRd len=512")]);
    assert_eq!(
        lines(&path, &["down0.acs=+RR", "down1.acs=+CR", forwarding]),
        [request("MWr len=768"), request("MRd len=512")]
    );
    // A request that came up is sent back down the root port only with it.
    let lost = "UR (pci.turned-back)";
    assert_eq!(
        lines(&path, &["down0.acs=RR"]),
        [
            format!("peer0 MWr len=768: bus-address to peer1 -> {lost}"),
            format!("peer0 MRd len=512: bus-address to peer1 -> {lost}"),
        ]
    );
    // What has no effect on any of them: the other direction, and controls that are off anyway.
    for nothing in ["down1.acs=+RR", "down0.acs=none", "down0.acs-without-effect=RR"] {
        assert_eq!(lines(&path, &[nothing]), [""; 0], "{nothing}");
    }
}

/// The ACS Control register of a port.
fn acs_control(bench: &mut Bench, port: &str) -> (Bdf, u16) {
    let function = bench.system.function(port).unwrap();
    let bdf = bench.system.address_map().node(function).requester;
    let mut at = 0x100;
    while bench.system.config_read(bdf, at, 2) != 0xd {
        at = u16::try_from(bench.system.config_read(bdf, at + 2, 2) >> 4).unwrap();
        assert_ne!(at, 0, "{port} has no ACS");
    }
    (bdf, at + 6)
}

#[test]
fn a_control_without_effect_would_have_let_requests_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    let config = SystemConfig {
        topology: Topology::load("switch-acs").unwrap(),
        iommu: IommuKind::None,
        local_memory: 1 << 20,
        ..SystemConfig::default()
    };
    let mut bench = Bench::of(&path, RecordOptions::default(), config);
    let (bdf, control) = acs_control(&mut bench, "down0");
    let redirect = u32::from(AcsControl::P2P_REQUEST_REDIRECT.bits());
    bench.system.config_write(bdf, control, 2, redirect);
    let memory = bench.bar("peer1", 2);
    bench.run(&[descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, memory, 0x300)]);
    bench.recording.finish().unwrap();
    let was = "peer0 MWr len=768: UR (pci.turned-back)";
    assert_eq!(
        lines(&path, &["down0.acs-without-effect=RR"]),
        [format!("{was} -> bus-address to peer1")]
    );
    // The one that is on decides, and only where it is on.
    for nothing in ["down0.acs-without-effect=CR", "down1.acs-without-effect=RR"] {
        assert_eq!(lines(&path, &[nothing]), [""; 0], "{nothing}");
    }
}

#[test]
fn a_host_bridge_and_a_defect_decide_what_came_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    record(&path, "root-ports");
    let refused = "UR (pci.peer-to-peer-refused)";
    let was = "through-host-bridge to peer1";
    assert_eq!(
        lines(&path, &["host-bridge.peer-routing=nowhere"]),
        [
            format!("peer0 MWr len=768: {was} -> {refused}"),
            format!("peer0 MRd len=512: {was} -> {refused}")
        ]
    );
    assert_eq!(lines(&path, &["host-bridge.peer-routing=everywhere"]), [""; 0]);
}

#[test]
fn strict_needs_an_iommu_and_a_witness() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    record(&path, "switch");
    let error = ask(&path, &["strict"]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("--what-if strict: the recorded system has no IOMMU that translates"),
        "{error}"
    );
    assert!(!error.is_of_the_machine());
}
