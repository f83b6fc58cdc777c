use super::*;

const ON: MsixFunction = MsixFunction { enabled: true, masked: false };
const MASKED: MsixFunction = MsixFunction { enabled: true, masked: true };
const MESSAGE: MsiMessage = MsiMessage { address: 0x1_fee0_1000, data: 0x4051 };

/// A table of 70 vectors, of which number 65 is programmed and unmasked.
fn table() -> MsixTable {
    let mut table = MsixTable::new(70);
    table.write(65 * 16, &0x1_fee0_1003_u64.to_le_bytes());
    table.write(65 * 16 + 8, &0x4051_u64.to_le_bytes());
    table
}

fn dword(table: &MsixTable, offset: u64) -> u32 {
    let mut data = [0; 4];
    table.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Section 7.7.2: sizes of BARs, and where the pending bits are.
#[test]
fn layout() {
    assert_eq!((MsixTable::pending_offset(1), MsixTable::bar_size(1)), (0x800, 0x1000));
    assert_eq!((MsixTable::pending_offset(128), MsixTable::bar_size(128)), (0x800, 0x1000));
    assert_eq!((MsixTable::pending_offset(129), MsixTable::bar_size(129)), (0x1000, 0x2000));
    assert_eq!((MsixTable::pending_offset(2048), MsixTable::bar_size(2048)), (0x8000, 0x1_0000));
    assert_eq!(MsixTable::new(u16::MAX).vectors(), 2048);
}

/// Section 7.7.2.8: all entries are masked after reset.
#[test]
fn starts_masked() {
    let mut table = MsixTable::new(2);
    assert_eq!(dword(&table, 12), 1);
    assert_eq!(table.raise(0, ON), Raised::Pending);
    table.reset();
    assert_eq!(dword(&table, 0x800), 0);
    assert_eq!(table.raise(2, ON), Raised::NoVector);
    assert_eq!(table.raise(0, MsixFunction::default()), Raised::Disabled);
    assert_eq!(dword(&table, 0x800), 0);
}

#[test]
fn an_unmasked_vector_is_sent() {
    let mut table = table();
    assert_eq!(dword(&table, 65 * 16), 0xfee0_1000, "bits 1:0 of an address are 0");
    assert_eq!(table.raise(65, ON), Raised::Send(MESSAGE));
    assert!(table.owns(MESSAGE.address, MESSAGE.data, ON));
    assert!(!table.owns(MESSAGE.address, MESSAGE.data + 1, ON));
    assert!(!table.owns(MESSAGE.address, MESSAGE.data, MASKED));
    assert!(!table.owns(MESSAGE.address, MESSAGE.data, MsixFunction::default()));
    assert!(!table.owns(0, 0, ON), "entries that are masked own nothing");
}

/// Section 6.1.4.6: an interrupt raised while masked is sent when the mask goes, once.
#[test]
fn a_pending_vector_follows() {
    let mut table = table();
    assert_eq!(table.raise(65, MASKED), Raised::Pending);
    assert_eq!(table.raise(65, MASKED), Raised::Pending);
    assert_eq!(dword(&table, 0x800 + 8), 2);
    assert_eq!(table.take_pending(MASKED), None);
    assert_eq!(table.take_pending(ON), Some((65, MESSAGE)));
    assert_eq!(table.take_pending(ON), None);
    assert_eq!(dword(&table, 0x800 + 8), 0);
    table.write(65 * 16 + 12, &1u32.to_le_bytes());
    assert_eq!(table.raise(65, ON), Raised::Pending);
    assert_eq!(table.take_pending(ON), None);
    table.write(65 * 16 + 12, &0xffff_fffeu32.to_le_bytes());
    assert_eq!(dword(&table, 65 * 16 + 12), 0, "reserved bits stay 0");
    assert_eq!(table.take_pending(ON), Some((65, MESSAGE)));
}

#[test]
fn writes_that_the_specification_leaves_undefined_are_dropped() {
    let mut table = table();
    for (offset, data) in [(65 * 16, &[0; 2][..]), (65 * 16 + 4, &[0; 8]), (65 * 16 + 1, &[0; 4])] {
        table.write(offset, data);
    }
    table.write(0x808, &[0xff; 8]);
    assert_eq!(table.raise(65, ON), Raised::Send(MESSAGE));
    assert_eq!(dword(&table, 0x808), 0, "pending bits are read-only");
    let mut data = [0xaa; 8];
    table.read(70 * 16 - 4, &mut data);
    assert_eq!(data, [1, 0, 0, 0, 0, 0, 0, 0]);
    table.read(u64::MAX - 3, &mut data);
    assert_eq!(data, [0; 8]);
}
