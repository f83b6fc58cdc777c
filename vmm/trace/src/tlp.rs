//! Headers of request TLPs as the specification encodes them (PCIe 6.0, 2.2, non-flit mode): dwords, the most significant
//! byte first.
//!
//! ```text
//! byte 0      1        2        3
//!  Fmt Type   TC etc.  AT etc.  Length in dwords, 10 bits, 1024 as 0
//!  Requester ID        Tag      Last DW BE, First DW BE
//!  Address 63:32 (with 4 dwords only)
//!  Address 31:2
//! ```
//!
//! Traffic class, attributes, digest and poison bits are 0, and the address type is 0, untranslated.

use device_models::fabric::Kind;
use device_models::pci::Bdf;

/// Most dwords of one TLP (PCIe 6.0, 2.2.2).
const MAX_DWORDS: u64 = 1024;

/// Type field of memory requests, and of configuration requests of type 0 (PCIe 6.0, table 2-3).
const TYPE_MEMORY: u8 = 0;
const TYPE_CONFIG_0: u8 = 0b0_0100;

/// Format field: the dwords of the header, and whether data follows (PCIe 6.0, table 2-2).
const FMT_4_DWORDS: u8 = 0b001 << 5;
const FMT_WITH_DATA: u8 = 0b010 << 5;

/// A request TLP's header: 12 or 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlpHeader {
    bytes: [u8; 16],
    length: usize,
}

/// What a memory request's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Read or write.
    pub kind: Kind,
    /// Requester ID.
    pub requester: Bdf,
    /// Tag, 7:0.
    pub tag: u8,
    /// Address of the first byte that is enabled; of the first dword if none is.
    pub address: u64,
    /// Bytes from the first that is enabled to the last.
    pub length: u64,
}

impl TlpHeader {
    /// Of a memory request. What does not fit into one TLP, that is, whatever lies behind 1024 dwords, is left out.
    pub fn memory(request: &MemoryRequest) -> Self {
        let MemoryRequest { kind, requester, tag, address, length } = *request;
        let skip = address % 4;
        let dwords = (skip + length).div_ceil(4).clamp(1, MAX_DWORDS);
        let end = (skip + length).min(dwords * 4);
        let from = 0xf_u8 << skip & 0xf;
        let to = 0xf_u8 >> ((4 - end % 4) % 4);
        let (first, last) = match (length, dwords) {
            (0, _) => (0, 0),
            (_, 1) => (from & to, 0),
            _ => (from, to),
        };
        let high = address > u64::from(u32::MAX);
        let format = if high { FMT_4_DWORDS } else { 0 }
            | if kind == Kind::MemoryWrite { FMT_WITH_DATA } else { 0 };
        let mut header = Self::of(format | TYPE_MEMORY, dwords, requester, tag, last << 4 | first);
        let address = address & !3;
        if high {
            header.bytes[8..16].copy_from_slice(&address.to_be_bytes());
            header.length = 16;
        } else {
            header.bytes[8..12].copy_from_slice(&address.to_be_bytes()[4..]);
        }
        header
    }

    /// Of a configuration request of type 0 from the root complex, for 1, 2 or 4 bytes inside of a dword.
    pub fn configuration(function: Bdf, offset: u16, length: u8, write: bool) -> Self {
        let from = 0xf_u8 << (offset % 4) & 0xf;
        let to = 0xf_u8 >> 4_u16.saturating_sub(offset % 4 + u16::from(length.min(4)));
        let format = if write { FMT_WITH_DATA } else { 0 };
        let mut header = Self::of(format | TYPE_CONFIG_0, 1, Bdf(0), 0, from & to);
        header.bytes[8..10].copy_from_slice(&function.0.to_be_bytes());
        header.bytes[10..12].copy_from_slice(&(offset & 0xffc).to_be_bytes());
        header
    }

    fn of(format: u8, dwords: u64, requester: Bdf, tag: u8, enables: u8) -> Self {
        let mut bytes = [0; 16];
        let [high, low] = u16::try_from(dwords % MAX_DWORDS).unwrap_or(0).to_be_bytes();
        let [bus, device] = requester.0.to_be_bytes();
        bytes[..8].copy_from_slice(&[format, 0, high, low, bus, device, tag, enables]);
        Self { bytes, length: 12 }
    }

    /// The bytes: 3 or 4 dwords.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }

    /// Reads the header of a memory request; none if it is another's, or not one that [`TlpHeader::memory`] makes.
    pub fn parse(bytes: &[u8]) -> Option<MemoryRequest> {
        let (&[format, _, high, low, bus, device, tag, enables], rest) =
            bytes.split_first_chunk::<8>()?;
        let address = match (format & FMT_4_DWORDS != 0, rest.len()) {
            (false, 4) => u64::from(u32::from_be_bytes(rest.try_into().ok()?)),
            (true, 8) => u64::from_be_bytes(rest.try_into().ok()?),
            _ => return None,
        };
        let kind = match format & !FMT_4_DWORDS {
            TYPE_MEMORY => Kind::MemoryRead,
            FMT_WITH_DATA => Kind::MemoryWrite,
            _ => return None,
        };
        let dwords = match u64::from(u16::from_be_bytes([high, low]) & 0x3ff) {
            0 => MAX_DWORDS,
            dwords => dwords,
        };
        let (first, last) = (enables & 0xf, enables >> 4);
        let skip = u64::from((first | 0x10).trailing_zeros());
        let end = match (dwords, first) {
            (1, 0) => 0,
            (1, first) => 8 - u64::from(first.leading_zeros()),
            _ => dwords * 4 - (u64::from(last.leading_zeros()).saturating_sub(4)),
        };
        let skip = if end == 0 { 0 } else { skip };
        let requester = Bdf(u16::from_be_bytes([bus, device]));
        let address = address.checked_add(skip)?;
        let request =
            MemoryRequest { kind, requester, tag, address, length: end.saturating_sub(skip) };
        (Self::memory(&request).as_bytes() == bytes).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtlp_lib::{TlpFmt, TlpMode, TlpPacket, TlpType, new_conf_req, new_mem_req};

    use super::*;

    fn request(address: u64, length: u64) -> MemoryRequest {
        let requester = Bdf::new(3, 1, 2);
        MemoryRequest { kind: Kind::MemoryWrite, requester, tag: 0x5a, address, length }
    }

    #[test]
    fn a_header_is_that_of_the_specification() {
        let bytes = TlpHeader::memory(&request(0xfed0_0001, 2));
        // MWr, 3 dwords, 1 dword of data, bytes 1 and 2 of it.
        assert_eq!(bytes.as_bytes(), [0x40, 0, 0, 1, 3, 0x0a, 0x5a, 0x06, 0xfe, 0xd0, 0, 0]);
        let read = MemoryRequest { kind: Kind::MemoryRead, ..request(0x1_0000_0ffe, 4098) };
        // MRd, 4 dwords, from byte 2 of the first dword on; 1024 dwords are written as 0.
        assert_eq!(
            TlpHeader::memory(&read).as_bytes(),
            [0x20, 0, 0, 0, 3, 0x0a, 0x5a, 0xfc, 0, 0, 0, 1, 0, 0, 0x0f, 0xfc]
        );
        let config = TlpHeader::configuration(Bdf::new(1, 2, 3), 0x10a, 2, true);
        assert_eq!(config.as_bytes(), [0x44, 0, 0, 1, 0, 0, 0, 0x0c, 1, 0x13, 1, 8]);
    }

    #[test]
    fn what_is_not_such_a_header_is_refused() {
        let good = TlpHeader::memory(&request(0x1000, 64));
        assert!(TlpHeader::parse(good.as_bytes()).is_some());
        for (at, value) in [(0, 0x44), (0, 0x60), (1, 1), (2, 0x80), (7, 0x0a), (11, 1)] {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = value;
            assert_eq!(TlpHeader::parse(&bytes), None, "byte {at} = {value:#x}");
        }
        assert_eq!(TlpHeader::parse(&good.as_bytes()[..11]), None);
        assert_eq!(TlpHeader::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn an_independent_parser_reads_every_header(
            write: bool,
            requester: u16,
            tag: u8,
            address in prop_oneof![0..u64::from(u32::MAX), 0..u64::MAX - 0x2000],
            length in 0..4096_u64,
        ) {
            let kind = if write { Kind::MemoryWrite } else { Kind::MemoryRead };
            // No request crosses 4 KiB.
            let length = length.min(0x1000 - address % 0x1000);
            let wanted = MemoryRequest { kind, requester: Bdf(requester), tag, address, length };
            let header = TlpHeader::memory(&wanted);
            let address = if length == 0 { address & !3 } else { address };
            let again = TlpHeader::parse(header.as_bytes());
            prop_assert_eq!(again, Some(MemoryRequest { address, ..wanted }));

            let dwords = (address % 4 + length).div_ceil(4).max(1);
            let mut bytes = header.as_bytes().to_vec();
            if write {
                bytes.resize(bytes.len() + usize::try_from(dwords).unwrap() * 4, 0);
            }
            let packet = TlpPacket::new(bytes, TlpMode::NonFlit).unwrap();
            let wanted_type = if write { TlpType::MemWriteReq } else { TlpType::MemReadReq };
            prop_assert_eq!(packet.tlp_type().unwrap(), wanted_type);
            prop_assert_eq!(packet.header().get_tc(), 0);
            let field = u16::from_be_bytes([header.as_bytes()[2], header.as_bytes()[3]]);
            prop_assert_eq!(u64::from(field), dwords % 1024);
            let format = packet.tlp_format().unwrap();
            let four = address > u64::from(u32::MAX);
            prop_assert_eq!(
                format,
                match (write, four) {
                    (false, false) => TlpFmt::NoDataHeader3DW,
                    (false, true) => TlpFmt::NoDataHeader4DW,
                    (true, false) => TlpFmt::WithDataHeader3DW,
                    (true, true) => TlpFmt::WithDataHeader4DW,
                }
            );
            let request = new_mem_req(packet.data().to_vec(), &format).unwrap();
            prop_assert_eq!(request.req_id(), requester);
            prop_assert_eq!(request.tag(), tag);
            prop_assert_eq!(request.address() & !3, address & !3);
            let (first, last) = (request.fdwbe(), request.ldwbe());
            if length == 0 {
                prop_assert_eq!((first, last), (0, 0));
            } else if dwords == 1 {
                prop_assert_eq!(last, 0);
                prop_assert_eq!(u64::from(first.count_ones()), length);
                prop_assert_eq!(u64::from(first.trailing_zeros()), address % 4);
            } else {
                prop_assert_eq!(u64::from(first.trailing_zeros()), address % 4);
                let end = (dwords - 1) * 4 + u64::from(last.count_ones());
                prop_assert_eq!(end - address % 4, length);
            }
        }

        #[test]
        fn an_independent_parser_reads_every_configuration_header(
            function: u16,
            dword in 0..1024_u16,
            access in prop_oneof![
                (0..4_u16, Just(1_u8)), (0..3_u16, Just(2)), (Just(0), Just(4))
            ],
            write: bool,
        ) {
            let (skip, length) = access;
            let header = TlpHeader::configuration(Bdf(function), dword * 4 + skip, length, write);
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend([0; 4].iter().take(if write { 4 } else { 0 }));
            let packet = TlpPacket::new(bytes, TlpMode::NonFlit).unwrap();
            let wanted = if write { TlpType::ConfType0WriteReq } else { TlpType::ConfType0ReadReq };
            prop_assert_eq!(packet.tlp_type().unwrap(), wanted);
            let request = new_conf_req(packet.data().to_vec()).unwrap();
            let function = Bdf(function);
            prop_assert_eq!(request.req_id(), 0);
            prop_assert_eq!(request.bus_nr(), function.bus());
            prop_assert_eq!(request.dev_nr(), function.device());
            prop_assert_eq!(request.func_nr(), function.function());
            prop_assert_eq!(u16::from(request.ext_reg_nr()) << 6 | u16::from(request.reg_nr()), dword);
            let enables = header.as_bytes()[7];
            prop_assert_eq!(enables >> 4, 0);
            prop_assert_eq!(u8::try_from(enables.count_ones()).unwrap(), length);
            prop_assert_eq!(enables.trailing_zeros(), u32::from(skip));
        }
    }
}
