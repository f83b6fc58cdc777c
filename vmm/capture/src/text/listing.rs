//! What `lspci -v`, `-vv` and `-vvv` print below a function's first line.

use super::head::{Ids, last_pair};
use super::logical::Statement;
use super::values;
use crate::config::ConfigSpace;
use crate::function::{Header, Service};
use crate::gather::{Draft, Gathered, Virtual, name};
use crate::{AcsFlags, Address, Error};

/// The function whose lines are being read.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) address: Address,
    /// Number of the first line.
    line: usize,
    /// The command register was shown.
    control: bool,
    /// Inside the SR-IOV capability, whose regions are those of the virtual functions.
    in_sriov: bool,
    /// Any capability was listed; regions of the function itself come before.
    in_capabilities: bool,
    /// The ACS control line was there.
    acs_control: bool,
    /// Where the next region without a number goes (`-v`).
    next_bar: u8,
    /// Something is left out, or nothing says that it ends.
    gap: Option<usize>,
    /// What is printed last was there, or a blank line.
    ended: bool,
    enabled: Option<bool>,
    virtuals: Option<(u16, usize)>,
    config: Option<(ConfigSpace, usize)>,
}

impl Section {
    /// Begins the function at `address`.
    pub(super) fn new(address: Address, line: usize) -> Self {
        Self {
            address,
            line,
            control: false,
            in_sriov: false,
            in_capabilities: false,
            acs_control: false,
            next_bar: 0,
            gap: None,
            ended: false,
            enabled: None,
            virtuals: None,
            config: None,
        }
    }

    /// Something was left out in `line`.
    pub(super) fn gap(&mut self, line: usize) {
        self.gap = self.gap.or(Some(line));
    }

    /// A row of a hex dump.
    pub(super) fn row(&mut self, offset: usize, bytes: &[u8], line: usize) {
        let (config, _) = self.config.get_or_insert_with(|| (ConfigSpace::default(), line));
        config.set(offset, bytes);
        self.ended = true;
    }

    /// A blank line: `lspci` prints one behind each function.
    pub(super) fn blank(&mut self) {
        self.ended = true;
    }

    /// Nothing follows. `last` says that the text ends here, so what is missing may have been cut off.
    pub(super) fn close(self, gathered: &mut Gathered, last: Option<usize>) -> Result<(), Error> {
        let cut = self.gap.or(last.filter(|_| !self.ended));
        let draft = gathered.function(self.address, self.line)?;
        draft.listing.cut = draft.listing.cut.or(cut);
        if let Some((config, line)) = self.config {
            let mut notes = std::mem::take(&mut gathered.notes);
            let draft = gathered.function(self.address, self.line)?;
            config.decode(self.address, line, draft, &mut notes);
            gathered.notes = notes;
        }
        Ok(())
    }

    /// What a first line says.
    pub(super) fn ids(&self, gathered: &mut Gathered, ids: &Ids) -> Result<(), Error> {
        let line = self.line;
        let draft = gathered.function(self.address, line)?;
        let mut put = |field: fn(&mut Draft) -> &mut crate::field::Field<u16>,
                       value: Option<u16>| {
            if let Some(value) = value {
                field(draft).put(value, line);
            }
        };
        put(|draft| &mut draft.class, ids.class);
        put(|draft| &mut draft.vendor, ids.vendor);
        put(|draft| &mut draft.device, ids.device);
        if let Some(revision) = ids.revision {
            draft.revision.put(revision, line);
        }
        if let Some(interface) = ids.programming_interface {
            draft.programming_interface.put(interface, line);
        }
        if !ids.description.is_empty() {
            draft.description.get_or_insert_with(|| ids.description.clone());
        }
        if ids.class == Some(0x0604) {
            draft.header.put(Header::Bridge, line);
        }
        if ids.by_name {
            let text = "the device ID is that of the name in the text; -nn prints the number";
            gathered.notes.add(text, Some(self.address), Some(line));
        }
        Ok(())
    }

    /// A statement below the first line. Returns whether it is one of `lspci`.
    pub(super) fn statement(
        &mut self,
        gathered: &mut Gathered,
        statement: &Statement,
    ) -> Result<bool, Error> {
        let draft = gathered.function(self.address, self.line)?;
        let number = statement.number;
        let Some((key, value)) = split(&statement.first) else { return Ok(false) };
        let ended = std::mem::replace(&mut self.ended, false);
        match key {
            "Control" => self.control |= value.contains("I/O") || value.contains("Mem"),
            "Status" if !self.in_capabilities => {
                // Both are there in what lspci prints; in an extract usually not.
                draft.listing.whole |= self.control && value.starts_with("Cap");
                draft.listing.has_capabilities =
                    values::flag(&statement.squeezed, "Cap").or(draft.listing.has_capabilities);
            }
            "Flags" if !self.in_capabilities => self.flags(draft, statement),
            "Subsystem" | "DeviceName" => {
                if let Some((vendor, device)) = last_pair(&statement.spaced) {
                    draft.subsystem_vendor.put(vendor, number);
                    draft.subsystem_device.put(device, number);
                }
            }
            "Bus" => match values::buses(&statement.squeezed) {
                Some(buses) => {
                    draft.buses.put(buses, number);
                    draft.header.put(Header::Bridge, number);
                }
                None => unread(gathered, self.address, "its bus numbers", number),
            },
            "Memory behind bridge" => match values::window(&statement.first, &statement.squeezed) {
                Some(window) => draft.memory.put(window, number),
                None => unread(gathered, self.address, "its memory window", number),
            },
            "Prefetchable memory behind bridge" => {
                match values::window(&statement.first, &statement.squeezed) {
                    Some(window) => draft.prefetchable.put(window, number),
                    None => unread(gathered, self.address, "its prefetchable window", number),
                }
            }
            "NUMA node" => {
                // -1: firmware does not say.
                if let Some(node) = values::number(value) {
                    draft.numa_node.put(node, number);
                }
            }
            "IOMMU group" => match values::number(value) {
                Some(group) => draft.iommu_group.put(group, number),
                None => unread(gathered, self.address, "its IOMMU group", number),
            },
            "Kernel driver in use" => {
                draft.driver.put(name(value), number);
                self.ended = true;
            }
            "Kernel modules" => self.ended = true,
            "Capabilities" => self.capability(draft, statement),
            "ACSCap" | "ACSCtl" => self.acs(gathered, statement, key == "ACSCtl")?,
            "ATSCtl" => draft.ats.put(service(&statement.squeezed), number),
            "PASIDCtl" => draft.pasid.put(service(&statement.squeezed), number),
            "IOVCtl" => self.enabled = values::flag(&statement.squeezed, "Enable"),
            "Initial VFs" => {
                self.virtuals = values::decimal(&statement.squeezed, "NumberofVFs:")
                    .and_then(|count| Some((u16::try_from(count).ok()?, number)));
            }
            "VF offset" => self.virtual_functions(draft, statement),
            _ if key.starts_with("Region ") => self.region(draft, statement),
            "Memory at" | "I/O ports at" => self.region(draft, statement),
            "Express" => {
                if let Some(port) = statement.after("Express").and_then(values::port_type) {
                    draft.port.put(port, number);
                }
            }
            _ => {
                self.ended = ended;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn flags(&self, draft: &mut Draft, statement: &Statement) {
        draft.listing.whole = true;
        for part in statement.spaced.split(", ") {
            let of = |key: &str| values::number(part.trim().strip_prefix(key)?);
            if let Some(node) = of("NUMA node ") {
                draft.numa_node.put(node, statement.number);
            }
            if let Some(group) = of("IOMMU group ") {
                draft.iommu_group.put(group, statement.number);
            }
        }
    }

    fn capability(&mut self, draft: &mut Draft, statement: &Statement) {
        self.in_capabilities = true;
        self.in_sriov = false;
        let rest = statement.after("Capabilities:").unwrap_or_default();
        let Some((offset, what)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        else {
            // <access denied>, of which a forum may leave nothing, because it looks like a tag.
            draft.denied = true;
            return;
        };
        draft.listing.capabilities += 1;
        let digits = offset.split('v').next().unwrap_or_default();
        draft.listing.extended |= digits.len() == 3;
        self.in_sriov = what.starts_with("SingleRootI/OVirtualization");
        if what.starts_with("AccessControlServices") {
            draft.acs_present.put(true, statement.number);
        }
        if let Some(rest) = what.strip_prefix("Express") {
            draft.listing.express = true;
            if let Some(port) = values::port_type(rest) {
                draft.port.put(port, statement.number);
            }
        }
    }

    fn acs(
        &mut self,
        gathered: &mut Gathered,
        statement: &Statement,
        control: bool,
    ) -> Result<(), Error> {
        let number = statement.number;
        let read = values::acs(&statement.squeezed);
        let draft = gathered.function(self.address, self.line)?;
        draft.acs_present.put(true, number);
        let fields = if control { &mut draft.acs_control } else { &mut draft.acs_capabilities };
        for (field, value) in fields.iter_mut().zip(read.values()) {
            if let Some(value) = value {
                field.put(value, number);
            }
        }
        if control && std::mem::replace(&mut self.acs_control, true) {
            let text = "several ACS control lines below one address: the lines between them that name \
                        functions may be missing";
            gathered.notes.add(text, Some(self.address), Some(number));
        }
        if !read.is_complete() {
            let values = read.values();
            let missing: Vec<_> = AcsFlags::LSPCI
                .iter()
                .zip(values)
                .filter(|(_, value)| value.is_none())
                .map(|(name, _)| *name)
                .collect();
            let which = if control { "ACSCtl" } else { "ACSCap" };
            let text = format!("{which} is cut short: {} missing", missing.join(", "));
            gathered.notes.add(text, Some(self.address), Some(number));
        }
        Ok(())
    }

    fn region(&mut self, draft: &mut Draft, statement: &Statement) {
        if self.in_capabilities {
            return;
        }
        let read = |line: &str| {
            let (index, text) = values::region_index(line, self.next_bar)?;
            values::region(index, text)
        };
        // Broken within a number, it is whole only if nothing comes between.
        let spaced = read(&statement.spaced);
        let tight = || read(&statement.tight).or(spaced);
        let whole = spaced.filter(|bar| bar.size.is_some() || statement.spaced == statement.tight);
        if let Some(bar) = whole.or_else(tight) {
            let index = bar.index;
            let wide = matches!(bar.space, crate::Space::Memory { wide: true, .. });
            self.next_bar = index + 1 + u8::from(wide);
            draft.bar(bar);
        }
    }

    fn virtual_functions(&mut self, draft: &mut Draft, statement: &Statement) {
        let (Some(enabled), Some((count, number))) = (self.enabled, self.virtuals) else { return };
        let of = |key: &str| u16::try_from(values::decimal(&statement.squeezed, key)?).ok();
        if let (Some(offset), Some(stride)) = (of("VFoffset:"), of("stride:")) {
            let enabled = if enabled { count } else { 0 };
            draft.virtual_functions.put(Virtual { enabled, offset, stride }, number);
        }
    }
}

fn service(squeezed: &str) -> Service {
    match values::flag(squeezed, "Enable") {
        Some(true) => Service::On,
        Some(false) => Service::Off,
        None => Service::Unknown,
    }
}

fn unread(gathered: &mut Gathered, address: Address, what: &str, line: usize) {
    gathered.notes.add(format!("{what} cannot be read"), Some(address), Some(line));
}

/// Key and value of a line.
fn split(line: &str) -> Option<(&str, &str)> {
    // "Express" alone: a shortened text may lack "Capabilities: [40]".
    for key in ["Memory at", "I/O ports at", "Express"] {
        if let Some(rest) = line.strip_prefix(key) {
            return Some((key, rest));
        }
    }
    let (key, value) = line.split_once(':')?;
    Some((key.trim(), value.trim()))
}
