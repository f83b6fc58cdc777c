//! sysfs, and the shell script that reads the same.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use peerdma_capture::{Acs, Machine, Parent, PortType, capture, read};

fn captured(as_root: bool, identity: bool) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    common::write(folder.path(), as_root);
    capture(folder.path(), identity).unwrap()
}

fn redirect(machine: &Machine, address: &str) -> Option<bool> {
    match &machine.at(address.parse().unwrap()).unwrap().acs {
        Acs::Present { control, .. } => control.rr,
        _ => None,
    }
}

#[test]
fn sysfs_is_read_whole_as_root() {
    let machine = captured(true, false);
    assert_eq!(machine.functions.len(), 6);
    assert!(machine.notes.is_empty(), "{:?}", machine.notes);
    let kernel = &machine.kernel;
    assert_eq!(kernel.release.as_deref(), Some("6.12.9-amd64"));
    assert_eq!((kernel.p2pdma, kernel.iommu_groups), (Some(false), Some(true)));
    assert_eq!(kernel.command_line.as_deref(), Some("pci=noaer iommu.strict=1"));
    let cpu = machine.cpu.as_ref().unwrap();
    assert_eq!(
        (cpu.vendor.as_deref(), cpu.family, cpu.model),
        (Some("AuthenticAMD"), Some(25), Some(1))
    );
    assert_eq!(redirect(&machine, "3a:00.0"), Some(true));
    assert_eq!(redirect(&machine, "3c:08.0"), Some(true));
    assert_eq!(redirect(&machine, "3c:10.0"), Some(false));
    assert_eq!(machine.at("3b:00.0".parse().unwrap()).unwrap().acs, Acs::Absent);
    let drive = machine.find("nvme0").unwrap();
    assert_eq!(drive.parent, Parent::Below("3c:08.0".parse().unwrap()));
    assert_eq!((drive.port, drive.iommu_group), (PortType::Endpoint, Some(5)));
    assert_eq!(drive.p2p_memory.unwrap().size, Some(1 << 20));
    assert_eq!(
        (drive.bars[0].size, drive.bars[0].cpu_address),
        (Some(0x4000), Some(0x383f_e000_0000))
    );
    assert_eq!(machine.find("nvme3").unwrap(), drive);
    assert_eq!(machine.find("mlx5_0").unwrap().names.network, ["enp62s0np0"]);
}

#[test]
fn without_root_acs_is_unknown_and_the_note_says_what_to_do() {
    let machine = captured(false, false);
    for function in &machine.functions {
        assert_eq!(function.acs, Acs::Unknown, "{function:?}");
        assert_ne!(function.parent, Parent::Unknown, "{function:?}");
    }
    let note = machine.notes.iter().find(|note| note.text.contains("as root")).unwrap();
    assert_eq!(note.functions.len(), 6);
}

#[test]
fn nothing_that_names_a_person_or_a_machine_is_written() {
    let text = captured(true, false).to_json().unwrap();
    for secret in ["secret-uuid", "0123456789ab", "deadbeef", "efbeadde"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let text = captured(true, true).to_json().unwrap();
    assert!(
        text.contains("secret-uuid") && text.contains("0123456789ab") && !text.contains("deadbeef")
    );
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let machine = captured(true, false);
    assert_eq!(read(machine.to_json().unwrap().as_bytes()).unwrap(), machine);
}

/// The script of the documentation, without lspci, on the same copy.
#[test]
fn the_script_in_the_documentation_leads_to_the_same_record() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/machine-files.md");
    if !page.exists() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let line = format!("SKIP {name}: {} is not part of the package\n", page.display());
        // Not captured by libtest; `make test` counts it.
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        return;
    }
    let page = fs::read_to_string(page).unwrap();
    for as_root in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        common::write(folder.path(), as_root);
        let output = script(&page, folder.path());
        assert!(!String::from_utf8_lossy(&output).contains("secret-uuid"));
        let mut from_script = read(&output).unwrap();
        let from_sysfs = capture(folder.path(), false).unwrap();
        from_script.source.clone_from(&from_sysfs.source);
        for note in &mut from_script.notes {
            note.line = None;
        }
        assert_eq!(from_script, from_sysfs);
    }
}

/// What the script in `page` prints about the machine below `root`.
fn script(page: &str, root: &Path) -> Vec<u8> {
    let (_, rest) = page.split_once("```sh\n#!/bin/sh\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let output =
        Command::new("sh").arg("-c").arg(text).arg("sh").arg(root).env("LSPCI", "").output();
    output.unwrap().stdout
}

/// Without MMCONFIG the kernel itself sees 256 bytes: that matters for what has a PCIe capability, and for nothing else.
#[test]
fn a_kernel_that_reads_256_bytes_says_so_of_pcie_functions() {
    let folder = tempfile::tempdir().unwrap();
    common::write(folder.path(), true);
    let of = |at: usize| {
        let device = &common::devices()[at];
        folder.path().join(format!("sys/devices/{}/{}/config", device.path, device.address))
    };
    let express = fs::read(of(0)).unwrap();
    fs::write(of(0), &express[..256]).unwrap();
    let mut conventional = fs::read(of(4)).unwrap();
    conventional[6] = 0;
    fs::write(of(4), &conventional[..256]).unwrap();
    let machine = capture(folder.path(), false).unwrap();
    let about: Vec<_> =
        machine.notes.iter().filter(|note| note.text.contains("only 256")).collect();
    assert_eq!(about.len(), 1);
    assert_eq!(about[0].functions, ["3a:00.0".parse().unwrap()]);
    assert_eq!(redirect(&machine, "3a:00.0"), None);
    assert_eq!(machine.at("3d:00.0".parse().unwrap()).unwrap().acs, Acs::Absent);
}
