//! The two lists of capabilities (PCIe 6.0, 7.5.1.1.11 and 7.6.3).

use super::{Broken, ConfigSpace, walk};
use crate::gather::{Draft, Virtual};
use crate::{AcsFlags, Egress, PortType, Service};

/// First offset of capabilities in the first 256 bytes.
const FIRST: usize = 0x40;
/// First offset of extended capabilities.
const EXTENDED: usize = 0x100;

impl ConfigSpace {
    /// States what the capabilities say. An error is the reason why what was not found may be there.
    pub(super) fn capabilities(&self, line: usize, draft: &mut Draft) -> Result<(), Broken> {
        let status = self.u16(6).ok_or(Broken::Missing)?;
        let mut express = None;
        if status & 0x10 != 0 {
            // The lower two bits are reserved; software masks them.
            let first = usize::from(self.u8(0x34).ok_or(Broken::Missing)? & !3);
            let first = if first == 0 { return self.conventional(line, draft) } else { first };
            walk(first, |at| {
                if at < FIRST {
                    return Err(Broken::Astray);
                }
                let id = self.u8(at).ok_or(Broken::Missing)?;
                let next = usize::from(self.u8(at + 1).ok_or(Broken::Missing)? & !3);
                match id {
                    0x0d => self.subsystem(at + 4, line, draft),
                    0x10 if express.is_none() => {
                        express = Some(self.u16(at + 2).ok_or(Broken::Missing)?);
                    }
                    0xff => return Err(Broken::Astray),
                    _ => {}
                }
                Ok((next != 0).then_some(next))
            })
            // What was found before the list broke is there nevertheless.
            .or_else(|broken| if express.is_some() { Ok(()) } else { Err(broken) })?;
        }
        let Some(flags) = express else { return self.conventional(line, draft) };
        let port = PortType::from_field(flags >> 4 & 0xf);
        if port != PortType::Unknown {
            draft.port.put(port, line);
        }
        self.extended(line, draft)
    }

    /// Without a PCIe capability: Linux reads no extended ones then.
    #[expect(clippy::unnecessary_wraps, reason = "ends a function that returns this type")]
    fn conventional(&self, line: usize, draft: &mut Draft) -> Result<(), Broken> {
        draft.port.put(PortType::Conventional, line);
        draft.acs_present.put(false, line);
        draft.ats.put(Service::Absent, line);
        draft.pasid.put(Service::Absent, line);
        Ok(())
    }

    fn extended(&self, line: usize, draft: &mut Draft) -> Result<(), Broken> {
        let (mut acs, mut ats, mut pasid) = (false, false, false);
        let first = self.u32(EXTENDED).ok_or(Broken::Missing)?;
        // A header of zeros says that the function has none; ones, that nothing answers there.
        if first != 0 && first != u32::MAX {
            walk(EXTENDED, |at| {
                if at < EXTENDED {
                    return Err(Broken::Astray);
                }
                let header = self.u32(at).ok_or(Broken::Missing)?;
                match header & 0xffff {
                    0x0d if !acs => {
                        acs = true;
                        self.acs(at, line, draft);
                    }
                    0x0f => {
                        ats = true;
                        self.service(at, 15, line, &mut draft.ats);
                    }
                    0x1b => {
                        pasid = true;
                        self.service(at, 0, line, &mut draft.pasid);
                    }
                    0x10 => self.virtual_functions(at, line, draft),
                    0xffff => return Err(Broken::Astray),
                    _ => {}
                }
                let next = usize::from(u16::try_from(header >> 20).unwrap_or(0) & 0xffc);
                Ok((next != 0).then_some(next))
            })?;
        } else if first == u32::MAX {
            return Err(Broken::Astray);
        }
        if !acs {
            draft.acs_present.put(false, line);
        }
        if !ats {
            draft.ats.put(Service::Absent, line);
        }
        if !pasid {
            draft.pasid.put(Service::Absent, line);
        }
        Ok(())
    }

    fn acs(&self, at: usize, line: usize, draft: &mut Draft) {
        draft.acs_present.put(true, line);
        let capability = self.u16(at + 4);
        for (register, fields) in
            [(capability, &mut draft.acs_capabilities), (self.u16(at + 6), &mut draft.acs_control)]
        {
            let Some(register) = register else { continue };
            for (field, value) in fields.iter_mut().zip(AcsFlags::from_register(register).values())
            {
                if let Some(value) = value {
                    field.put(value, line);
                }
            }
        }
        // The vector is there with P2P Egress Control only; a size of 0 stands for 256 bits.
        if let Some(register) = capability.filter(|register| register & 0x20 != 0) {
            let bits = match register >> 8 {
                0 => 256,
                bits => bits,
            };
            let words = usize::from(bits).div_ceil(32);
            let words: Option<Vec<_>> =
                (0..words).map(|word| self.u32(at + 8 + 4 * word)).collect();
            if let Some(words) = words {
                draft.egress.put(Egress { bits, words }, line);
            }
        }
    }

    fn service(&self, at: usize, bit: u16, line: usize, field: &mut crate::field::Field<Service>) {
        if let Some(control) = self.u16(at + 6) {
            let on = control >> bit & 1 == 1;
            field.put(if on { Service::On } else { Service::Off }, line);
        }
    }

    fn virtual_functions(&self, at: usize, line: usize, draft: &mut Draft) {
        let of = |offset: usize| self.u16(at + offset);
        if let (Some(control), Some(count), Some(offset), Some(stride)) =
            (of(0x08), of(0x10), of(0x14), of(0x16))
        {
            let enabled = if control & 1 == 1 { count } else { 0 };
            draft.virtual_functions.put(Virtual { enabled, offset, stride }, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::Notes;
    use crate::{Address, Header, Window};

    /// A root port with ACS at 0x148, built by hand.
    fn root_port() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let mut put =
            |at: usize, values: &[u8]| bytes[at..at + values.len()].copy_from_slice(values);
        put(0, &[0x86, 0x80, 0x30, 0x20, 0x06, 0x00, 0x10, 0x00, 0x04, 0x00, 0x04, 0x06]);
        put(0x0e, &[0x81]);
        put(0x18, &[0x3a, 0x3b, 0x3e]);
        put(0x20, &[0x00, 0xb8, 0xf0, 0xb9]);
        put(0x24, &[0xf1, 0xff, 0x01, 0x00]);
        put(0x34, &[0x40]);
        put(0x40, &[0x01, 0x90, 0, 0]);
        put(0x90, &[0x10, 0x00, 0x42, 0x00]);
        put(0x100, &[0x0b, 0x00, 0x81, 0x14]);
        put(0x148, &[0x0d, 0x00, 0x01, 0x00, 0x3f, 0x21, 0x1d, 0x00, 0x05, 0, 0, 0, 0x01, 0, 0, 0]);
        bytes
    }

    fn decode(bytes: &[u8]) -> (Draft, String) {
        let (mut draft, mut notes) = (Draft::default(), Notes::default());
        let address: Address = "3a:00.0".parse().unwrap();
        ConfigSpace::new(bytes).decode(address, 7, &mut draft, &mut notes);
        (draft, notes.0.into_keys().collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_port_with_acs_is_read_whole() {
        let (draft, notes) = decode(&root_port());
        assert_eq!(notes, "");
        assert_eq!((draft.vendor.get(), draft.class.get()), (Some(&0x8086), Some(&0x0604)));
        assert_eq!(
            (draft.header.get(), draft.multi_function.get()),
            (Some(&Header::Bridge), Some(&true))
        );
        assert_eq!(draft.port.get(), Some(&PortType::RootPort));
        assert_eq!(
            draft.memory.get(),
            Some(&Window::Open { first: 0xb800_0000, last: 0xb9ff_ffff })
        );
        assert_eq!(draft.prefetchable.get(), Some(&Window::Closed));
        assert_eq!(draft.acs_present.get(), Some(&true));
        let control: Vec<_> = draft.acs_control.iter().map(|field| *field.get().unwrap()).collect();
        assert_eq!(control, [true, false, true, true, true, false, false]);
        assert_eq!(draft.egress.get(), Some(&Egress { bits: 33, words: vec![5, 1] }));
        assert_eq!(draft.ats.get(), Some(&Service::Absent));
    }

    #[test]
    fn capabilities_that_are_not_there_are_unknown_not_absent() {
        for length in [64, 128, 256, 0x102] {
            let (draft, notes) = decode(&root_port()[..length]);
            assert_eq!(draft.acs_present.get(), None, "{length}");
            assert!(notes.contains(&format!("the first {length} bytes")), "{notes}");
            assert_eq!(draft.port.get().is_some(), length >= 256, "{length}");
        }
        // ACS itself is cut: it is there, and what it does is unknown.
        let (draft, _) = decode(&root_port()[..0x14e]);
        assert_eq!(draft.acs_present.get(), Some(&true));
        assert!(draft.acs_capabilities[2].get().is_some() && draft.acs_control[2].get().is_none());
    }

    #[test]
    fn a_function_without_is_absent() {
        let mut bytes = root_port();
        bytes[0x148] = 0x0b;
        assert_eq!(decode(&bytes).0.acs_present.get(), Some(&false));
        bytes[0x100..0x104].fill(0);
        assert_eq!(decode(&bytes).0.acs_present.get(), Some(&false));
        // No capabilities at all: conventional, and 64 bytes are enough to know.
        bytes[6] = 0;
        let (draft, notes) = decode(&bytes[..64]);
        assert_eq!(
            (draft.port.get(), draft.acs_present.get()),
            (Some(&PortType::Conventional), Some(&false))
        );
        assert_eq!(notes, "");
    }

    #[test]
    fn a_virtual_function_has_no_ids_but_capabilities() {
        let mut bytes = root_port();
        bytes[..4].fill(0xff);
        let (draft, notes) = decode(&bytes);
        assert_eq!((draft.vendor.get(), draft.device.get(), notes.as_str()), (None, None, ""));
        assert_eq!(draft.acs_present.get(), Some(&true));
    }

    #[test]
    fn lists_that_lead_nowhere_end() {
        let broken = |at: usize, values: &[u8]| {
            let mut bytes = root_port();
            bytes[at..at + values.len()].copy_from_slice(values);
            let (draft, notes) = decode(&bytes);
            assert_ne!(draft.acs_present.get(), Some(&false), "{at:x}");
            notes
        };
        assert!(broken(0x41, &[0x40]).contains("circle"));
        assert!(broken(0x34, &[0x10]).contains("astray"));
        assert!(broken(0x102, &[0x01, 0x10]).contains("circle"));
        assert!(broken(0x102, &[0x01, 0x04]).contains("astray"));
        assert!(broken(0x100, &[0xff; 4]).contains("astray"));
        assert!(broken(0, &[0xff; 16]).contains("reads as ones"));
        // The circle comes after ACS.
        let mut bytes = root_port();
        bytes[0x14a..0x14c].copy_from_slice(&[0x01, 0x10]);
        assert_eq!(decode(&bytes).0.acs_present.get(), Some(&true));
    }
}
