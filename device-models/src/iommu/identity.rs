use super::{Access, Fault, Iommu, MappingKind, Translation};
use crate::AddressRange;
use crate::pci::Bdf;

/// No IOMMU at all: every address is a guest physical address.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIommu;

impl Iommu for NoIommu {
    fn translate(
        &mut self,
        _: Bdf,
        address: u64,
        length: u64,
        _: Access,
    ) -> Result<Translation, Fault> {
        Ok(Translation::within(AddressRange::ALL, 0, address, length, MappingKind::Bypass))
    }

    fn epoch(&self) -> u64 {
        0
    }

    fn report(&mut self, _: &Fault) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_where_it_is() {
        let mut none = NoIommu;
        for address in [0, 0x1234, u64::MAX] {
            let answer = none.translate(Bdf::default(), address, 1, Access::Write).unwrap();
            assert_eq!((answer.address, answer.length), (address, 1));
        }
        let end = none.translate(Bdf::default(), u64::MAX, 64, Access::Read).unwrap();
        assert_eq!(end.length, 1, "an answer never wraps around the end of the address space");
    }
}
