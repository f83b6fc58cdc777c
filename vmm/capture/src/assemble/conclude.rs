//! What a function lacks: concluded only from a listing that would show it.

use super::Conclusion;
use crate::gather::{Draft, Listing, Notes};
use crate::{Address, PortType, Service};

/// What `draft`'s listing allows to conclude. `extended` says that the text shows capabilities beyond the first 256
/// bytes somewhere, so that its maker was able to read them.
pub(super) fn conclude(
    address: Address,
    draft: &Draft,
    extended: bool,
    notes: &mut Notes,
) -> Conclusion {
    let unknown =
        || Conclusion { port: PortType::Unknown, acs_absent: false, service: Service::Unknown };
    // Another reader has found out from the configuration space itself, or has said why not.
    let known = draft.acs_present.get().is_some() || draft.has_config;
    let mut note = |text: &str, line: usize| {
        if !known {
            notes.add(text, Some(address), Some(line));
        }
    };
    if draft.denied {
        note(
            "capabilities were not readable, so whether ACS redirects is not known: run it as root",
            draft.line,
        );
        return unknown();
    }
    let Listing { whole, has_capabilities, capabilities, express, extended: own, cut } =
        draft.listing;
    if let Some(line) = cut {
        note("the text is cut, so what it does not show is not known", line);
        return unknown();
    }
    if !whole && capabilities > 0 {
        note(
            "its lines Control and Status are missing, so the text is an extract, and whether it has ACS is not known",
            draft.line,
        );
        return unknown();
    }
    if !whole {
        note(
            "the text shows no capabilities of it, so whether it has ACS is not known: lspci -vvv as root shows them",
            draft.line,
        );
        return unknown();
    }
    if capabilities == 0 && has_capabilities != Some(false) {
        note("its capabilities are missing in the text", draft.line);
        return unknown();
    }
    let lacks = |port| Conclusion { port, acs_absent: true, service: Service::Absent };
    match (express, own) {
        // Without a PCIe capability Linux reads no extended ones.
        (false, false) => lacks(PortType::Conventional),
        (false, true) => {
            note("its PCIe capability is missing in the text", draft.line);
            unknown()
        }
        (true, true) => lacks(PortType::Unknown),
        (true, false) if extended => lacks(PortType::Unknown),
        (true, false) => {
            note(
                "the text shows no extended capabilities of any function, so whether it has ACS is not known",
                draft.line,
            );
            unknown()
        }
    }
}
