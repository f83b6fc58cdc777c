//! The state in which the first vCPU starts, and the tables it needs for that.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::GuestMemoryMmap;

use super::{BootError, write};
use crate::layout;

/// Control register bits (Intel SDM vol. 3, 2.5) and EFER bits (2.2.1).
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of `rflags` that is always one.
const RFLAGS_FIXED: u64 = 1 << 1;

/// Page table entry bits (Intel SDM vol. 3, 4.5).
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const ENTRIES: usize = 512;
/// Page directories, each of which maps 1 GiB.
const DIRECTORIES: usize = 4;
const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Segment types (Intel SDM vol. 3, 3.4.5.1 and 3.5).
const CODE_EXECUTE_READ_ACCESSED: u8 = 0xB;
const DATA_READ_WRITE_ACCESSED: u8 = 0x3;
const BUSY_TSS: u8 = 0xB;

/// Selectors in the table that [`write_long_mode_tables`] writes; Linux's own boot code uses the same.
const SELECTOR_CODE: u16 = 0x10;
const SELECTOR_DATA: u16 = 0x18;
const SELECTOR_TSS: u16 = 0x20;

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    mode: Mode,
    rip: u64,
    rsp: u64,
    rbx: u64,
    rsi: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Protected,
    Long,
}

impl Entry {
    /// 32-bit protected mode, flat segments, no paging: what PVH asks for.
    pub(crate) fn protected_mode(rip: u64, rbx: u64) -> Self {
        Self { mode: Mode::Protected, rip, rsp: 0, rbx, rsi: 0 }
    }

    /// Long mode with the lowest 4 GiB mapped to themselves. Needs [`write_long_mode_tables`].
    pub(crate) fn long_mode(rip: u64, rsp: u64) -> Self {
        Self { mode: Mode::Long, rip, rsp, rbx: 0, rsi: 0 }
    }

    pub(crate) fn with_rsi(self, rsi: u64) -> Self {
        Self { rsi, ..self }
    }

    /// The general registers.
    pub(crate) fn regs(&self) -> kvm_regs {
        let Self { rip, rsp, rbx, rsi, .. } = *self;
        kvm_regs { rip, rsp, rbx, rsi, rflags: RFLAGS_FIXED, ..Default::default() }
    }

    /// Changes the system registers from their reset state.
    pub(crate) fn apply(&self, sregs: &mut kvm_sregs) {
        let long = self.mode == Mode::Long;
        sregs.cs = segment(SELECTOR_CODE, CODE_EXECUTE_READ_ACCESSED, long);
        let data = segment(SELECTOR_DATA, DATA_READ_WRITE_ACCESSED, false);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            limit: 0x67,
            selector: SELECTOR_TSS,
            type_: BUSY_TSS,
            present: 1,
            ..Default::default()
        };
        sregs.idt = kvm_dtable::default();
        sregs.gdt = kvm_dtable { base: layout::GDT, limit: gdt_limit(), ..Default::default() };
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        if long {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 |= CR4_PAE;
            sregs.efer |= EFER_LME | EFER_LMA;
        }
    }
}

fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Null, unused, 64-bit code, data, and room for a task state segment's 16 bytes.
const GDT: [u64; 6] =
    [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_0067, 0];

fn gdt_limit() -> u16 {
    u16::try_from(size_of_val(&GDT) - 1).unwrap_or(0)
}

/// Writes the descriptor table and the page tables of [`Entry::long_mode`].
pub(crate) fn write_long_mode_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let gdt: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write(memory, "descriptor table", &gdt, layout::GDT)?;

    let mut tables = vec![0_u64; ENTRIES * (2 + DIRECTORIES)];
    let (upper, directories) = tables.split_at_mut(ENTRIES * 2);
    let (pml4, pointers) = upper.split_at_mut(ENTRIES);
    let pointer_table = layout::PAGE_TABLES + layout::PAGE_SIZE;
    if let Some(first) = pml4.first_mut() {
        *first = pointer_table | PRESENT_WRITABLE;
    }
    let mut directory = pointer_table + layout::PAGE_SIZE;
    for entry in pointers.iter_mut().take(DIRECTORIES) {
        *entry = directory | PRESENT_WRITABLE;
        directory += layout::PAGE_SIZE;
    }
    let mut page = 0;
    for entry in directories {
        *entry = page | PRESENT_WRITABLE | LARGE_PAGE;
        page += LARGE_PAGE_SIZE;
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write(memory, "page tables", &bytes, layout::PAGE_TABLES)
}
