//! The options of `pci=` that Linux 7.3 has (`pci_setup()`, and x86's `pcibios_setup()`), and what each would change in the
//! lab's guests.

use peerdma_support::names::nearest_name;

use super::parameters::{CONFIGURE, DISABLE_REDIRECTION};

/// What there is to say of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PciOption {
    /// The prediction knows what it does.
    Modelled,
    /// The prediction leaves it out, and this is what changes.
    Changes(&'static str),
    /// It changes nothing here, for this reason.
    Idle(&'static str),
    /// The kernel of an x86-64 machine does not know it.
    Elsewhere(&'static str),
}

/// How Linux compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Whole,
    /// With the beginning only.
    Prefix,
}

use Match::{Prefix, Whole};
use PciOption::{Changes, Elsewhere, Idle, Modelled};

const NO_CONFIGURATION: &str =
    "the guest finds no PCI device: this machine has no way to configuration space but MMCONFIG";
const PLACES: &str =
    "where BARs and bridge windows lie, or whether Linux leaves them where the firmware put them";
const SIZES: &str = "payload and read request sizes, not the way";
const LEGACY: &str = "it is about interrupt pins, and devices here have MSI";
const BIOS: &str = "on 32-bit x86 only";
const S390: &str = "on s390 only";
const CARDBUS: &str = "with CardBus only";

/// In the order in which Linux asks.
const OPTIONS: &[(&str, Match, PciOption)] = &[
    ("off", Whole, Changes("Linux looks for no PCI device")),
    (
        "bfsort",
        Whole,
        Changes("the order in which Linux has devices, and so their numbers under /dev"),
    ),
    ("nobfsort", Whole, Idle("Linux does that by itself")),
    ("bios", Whole, Elsewhere(BIOS)),
    ("nobios", Whole, Elsewhere(BIOS)),
    ("biosirq", Whole, Elsewhere(BIOS)),
    ("pirqaddr=", Prefix, Elsewhere(BIOS)),
    ("conf1", Whole, Changes(NO_CONFIGURATION)),
    ("conf2", Whole, Changes(NO_CONFIGURATION)),
    ("nommconf", Whole, Changes(NO_CONFIGURATION)),
    ("check_enable_amd_mmconf", Whole, Idle("it is for AMD's family 10h")),
    ("noacpi", Whole, Idle(LEGACY)),
    ("noearly", Whole, Idle("there is nothing to scan early")),
    ("usepirqmask", Whole, Idle(LEGACY)),
    ("irqmask=", Prefix, Idle(LEGACY)),
    ("lastbus=", Prefix, Idle("ACPI names the buses")),
    ("rom", Whole, Idle("no device here has an expansion ROM")),
    ("norom", Whole, Idle("no device here has an expansion ROM")),
    ("nobar", Whole, Changes(PLACES)),
    ("assign-busses", Whole, Changes("bus numbers: Linux gives its own")),
    ("use_crs", Whole, Idle("Linux does that by itself")),
    (
        "nocrs",
        Whole,
        Changes("host bridge windows: Linux takes any address for one of the bus, untranslated"),
    ),
    ("use_e820", Whole, Idle("Linux does that by itself")),
    ("no_e820", Whole, Changes(PLACES)),
    ("big_root_window", Whole, Idle("it is for AMD's host bridges")),
    ("routeirq", Whole, Idle(LEGACY)),
    ("skip_isa_align", Whole, Idle("devices here have no I/O ports")),
    ("noioapicquirk", Whole, Idle(LEGACY)),
    ("ioapicreroute", Whole, Idle(LEGACY)),
    ("noioapicreroute", Whole, Idle(LEGACY)),
    ("cbiosize=", Prefix, Elsewhere(CARDBUS)),
    ("cbmemsize=", Prefix, Elsewhere(CARDBUS)),
    (
        "nomsi",
        Whole,
        Changes("no MSI, and devices here have no other interrupts: their drivers do not bind"),
    ),
    ("noats", Prefix, Modelled),
    (
        "noaer",
        Whole,
        Changes("Linux neither logs the errors that ports report nor recovers from them"),
    ),
    ("earlydump", Whole, Idle("it only prints")),
    ("realloc=", Prefix, Changes(PLACES)),
    ("realloc", Prefix, Changes(PLACES)),
    ("nodomains", Whole, Idle("all is in one PCI segment")),
    ("noari", Prefix, Idle("nothing here has ARI")),
    ("notph", Prefix, Idle("nothing here has TPH")),
    ("resource_alignment=", Prefix, Changes(PLACES)),
    ("ecrc=", Prefix, Idle("nothing here has ECRC")),
    ("hpiosize=", Prefix, Changes(PLACES)),
    ("hpmmiosize=", Prefix, Changes(PLACES)),
    ("hpmmioprefsize=", Prefix, Changes(PLACES)),
    ("hpmemsize=", Prefix, Changes(PLACES)),
    (
        "hpbussize=",
        Prefix,
        Changes("bus numbers, if Linux gives more of them to slots with hot-plug"),
    ),
    ("pcie_bus_tune_off", Prefix, Changes(SIZES)),
    ("pcie_bus_safe", Prefix, Changes(SIZES)),
    ("pcie_bus_perf", Prefix, Changes(SIZES)),
    ("pcie_bus_peer2peer", Prefix, Changes(SIZES)),
    ("pcie_scan_all", Prefix, Idle("below a port there is no device but number 0")),
    (DISABLE_REDIRECTION, Prefix, Modelled),
    (CONFIGURE, Prefix, Modelled),
    ("force_floating", Whole, Elsewhere(S390)),
    ("nomio", Whole, Elsewhere(S390)),
    ("norid", Whole, Elsewhere(S390)),
];

/// What is known of an option, the part between two commas; none if Linux does not know it.
pub(super) fn find(option: &str) -> Option<PciOption> {
    let is = |(text, how, _): &&(&str, Match, PciOption)| match how {
        Whole => option == *text,
        Prefix => option.starts_with(text),
    };
    OPTIONS.iter().find(is).map(|(.., found)| *found)
}

/// What may have been meant by an option that there is not.
pub(super) fn meant(option: &str) -> String {
    let name = option.split_inclusive('=').next().unwrap_or_default();
    // There is none that names ACS but these, and what looks alike means something else.
    if name.to_ascii_lowercase().contains("acs") {
        return "; what changes ACS is pci=config_acs=FLAGS@DEVICE and pci=disable_acs_redir=DEVICE".into();
    }
    let near = nearest_name(name, OPTIONS.iter().map(|(text, ..)| *text));
    near.map_or(String::new(), |near| format!(", did you mean pci={near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_compared_as_linux_does() {
        assert_eq!(find("noats"), Some(Modelled));
        assert_eq!(find("noats-at-all"), Some(Modelled));
        assert_eq!(find("config_acs=x"), Some(Modelled));
        assert_eq!(find("nommconf"), Some(Changes(NO_CONFIGURATION)));
        assert!(matches!(find("realloc=off"), Some(Changes(_))));
        assert!(matches!(find("norid"), Some(Elsewhere(_))));
        for none in ["noacs", "nommconfig", "noaerx", "config_acs", "", "NOATS"] {
            assert_eq!(find(none), None, "{none}");
        }
    }

    #[test]
    fn what_was_meant_is_of_the_same_kind() {
        assert!(meant("noacs").contains("config_acs=") && !meant("noacs").contains("noats"));
        assert_eq!(meant("nommconfig"), ", did you mean pci=nommconf?");
        assert_eq!(meant("relloc=on"), ", did you mean pci=realloc=?");
        assert_eq!(meant("qqq"), "");
    }
}
