use vm_memory::{Bytes, GuestAddress};

use super::*;

const ENTRY: u64 = 0x100_0000;
const PVH_ENTRY: u32 = 0x100_0040;

/// A minimal kernel: one segment of 256 bytes in the file and 4 KiB in memory, and a PVH note if asked for.
struct Kernel {
    address: u64,
    machine: u16,
    pvh: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { address: ENTRY, machine: 62, pvh: true }
    }
}

impl Kernel {
    fn build(&self) -> Vec<u8> {
        let mut file = vec![0_u8; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&2_u16.to_le_bytes());
        file[18..20].copy_from_slice(&self.machine.to_le_bytes());
        file[24..32].copy_from_slice(&self.address.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&2_u16.to_le_bytes());
        let header = |kind: u32, offset: u64, address: u64, in_file: u64, in_memory: u64| {
            let mut header = [kind.to_le_bytes(), 7_u32.to_le_bytes()].concat();
            for value in [offset, address, address, in_file, in_memory, 0x1000] {
                header.extend(value.to_le_bytes());
            }
            header
        };
        file.extend(header(1, 0x200, self.address, 0x100, 0x1000));
        file.extend(header(4, 0x300, 0, 20, 20));
        file.resize(0x200, 0);
        file.extend([0xAB; 0x100]);
        let kind = if self.pvh { 18 } else { 1_u32 };
        for word in [
            4_u32.to_le_bytes(),
            4_u32.to_le_bytes(),
            kind.to_le_bytes(),
            *b"Xen\0",
            PVH_ENTRY.to_le_bytes(),
        ] {
            file.extend(word);
        }
        file
    }
}

fn boot(kernel: Vec<u8>) -> KernelBoot {
    KernelBoot {
        kernel: kernel.into(),
        initramfs: Some(vec![0xCD; 5000].into()),
        command_line: "quiet".into(),
        protocol: Protocol::Auto,
    }
}

fn word(ram: &GuestRam, address: u64) -> u64 {
    ram.memory().read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn a_kernel_with_the_note_is_entered_by_pvh() {
    let ram = GuestRam::new(64).unwrap();
    let entry = load(boot(Kernel::default().build()), &ram).unwrap();
    assert_eq!(entry, Entry::protected_mode(PVH_ENTRY.into(), layout::PVH_START_INFO));
    assert_eq!(word(&ram, ENTRY), 0xABAB_ABAB_ABAB_ABAB);
    assert_eq!(word(&ram, layout::PVH_START_INFO) & 0xFFFF_FFFF, 0x336E_C578);
    // One module: the initramfs, at the end of RAM on a page boundary.
    let (address, size) =
        (word(&ram, layout::PVH_MODULE_LIST), word(&ram, layout::PVH_MODULE_LIST + 8));
    assert_eq!((address, size), ((64 << 20) - 0x2000, 5000));
    assert_eq!(word(&ram, address + 4992), 0xCDCD_CDCD_CDCD_CDCD);
    let mut text = [0; 6];
    ram.memory().read_slice(&mut text, GuestAddress(layout::COMMAND_LINE)).unwrap();
    assert_eq!(&text, b"quiet\0");
}

#[test]
fn a_kernel_without_the_note_is_entered_in_long_mode() {
    let ram = GuestRam::new(64).unwrap();
    let kernel = Kernel { pvh: false, ..Kernel::default() }.build();
    let entry = load(boot(kernel.clone()), &ram).unwrap();
    assert_eq!(entry, Entry::long_mode(ENTRY, 0).with_rsi(layout::ZERO_PAGE));
    // "HdrS" at 0x202, the initramfs at 0x218, the RSDP at 0x70.
    assert_eq!(word(&ram, layout::ZERO_PAGE + 0x202) & 0xFFFF_FFFF, 0x5372_6448);
    assert_eq!(word(&ram, layout::ZERO_PAGE + 0x218), 5000 << 32 | ((64 << 20) - 0x2000));
    assert_eq!(word(&ram, layout::ZERO_PAGE + 0x70), layout::ACPI_TABLES.start);
    // The identity mapping holds the last page below 4 GiB.
    assert_eq!(word(&ram, layout::PAGE_TABLES), (layout::PAGE_TABLES + 0x1000) | 3);
    assert_eq!(word(&ram, layout::PAGE_TABLES_END - 8), 0xFFE0_0000 | 0x83);

    let error = load(KernelBoot { protocol: Protocol::Pvh, ..boot(kernel) }, &ram).unwrap_err();
    assert!(error.to_string().contains("CONFIG_PVH"), "{error}");
}

#[test]
fn the_64_bit_protocol_can_be_asked_for() {
    let ram = GuestRam::new(64).unwrap();
    let kernel = Kernel::default().build();
    let entry = load(KernelBoot { protocol: Protocol::Linux64, ..boot(kernel) }, &ram).unwrap();
    assert_eq!(entry, Entry::long_mode(ENTRY, 0).with_rsi(layout::ZERO_PAGE));
}

#[track_caller]
fn fails(kernel: Vec<u8>, ram_mib: u32, with: &str) {
    let ram = GuestRam::new(ram_mib).unwrap();
    let error = load(boot(kernel), &ram).unwrap_err().to_string();
    assert!(error.contains(with), "{error}");
}

#[test]
fn kernels_that_cannot_run_are_refused_with_the_reason() {
    fails(b"MZ".to_vec(), 64, "too short");
    fails(vec![0; 4096], 64, "not an ELF file");
    fails(
        Kernel { machine: 183, ..Kernel::default() }.build(),
        64,
        "another architecture (ELF machine 183)",
    );
    fails(Kernel { address: 0x8000, ..Kernel::default() }.build(), 64, "below 1 MiB");
    fails(Kernel { address: u64::MAX - 10, ..Kernel::default() }.build(), 64, "truncated");
    fails(Kernel::default().build(), 16, "give the guest more RAM");
    let mut headers_outside = Kernel::default().build();
    headers_outside[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    fails(headers_outside, 64, "truncated");
    // Wherever it is cut, it is refused.
    let whole = Kernel::default().build();
    for length in 0..whole.len() {
        let ram = GuestRam::new(64).unwrap();
        assert!(load(boot(whole[..length].to_vec()), &ram).is_err(), "cut at {length}");
    }
}

#[test]
fn an_initramfs_that_does_not_fit_is_refused() {
    let ram = GuestRam::new(17).unwrap();
    let too_large =
        KernelBoot { initramfs: Some(vec![0; 2 << 20].into()), ..boot(Kernel::default().build()) };
    let error = load(too_large, &ram).unwrap_err();
    assert!(matches!(error, BootError::NoRoom { what: "the initramfs", .. }), "{error}");
}

#[test]
fn bad_command_lines_are_refused() {
    let ram = GuestRam::new(64).unwrap();
    for command_line in ["x".repeat(layout::COMMAND_LINE_CAPACITY), "a\0b".into()] {
        let kernel = KernelBoot { command_line, ..boot(Kernel::default().build()) };
        assert!(matches!(load(kernel, &ram), Err(BootError::CommandLine(_))));
    }
    let longest = "x".repeat(layout::COMMAND_LINE_CAPACITY - 1);
    assert!(
        load(KernelBoot { command_line: longest, ..boot(Kernel::default().build()) }, &ram).is_ok()
    );
}
