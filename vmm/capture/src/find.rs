//! Functions by the names that people use.

use crate::{Address, FindError, Function, Machine};

/// What is counted in the order of addresses: `gpu0`, `gpu1`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A display controller or an accelerator (classes 03 and 12): `gpu0`.
    Gpu,
    /// A network controller, or an InfiniBand one (classes 02 and 0c06): `nic0`.
    Nic,
    /// An NVMe controller (class 0108, or whatever the nvme driver is bound to): `nvme0`.
    Nvme,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Gpu, Self::Nic, Self::Nvme];

    /// The name before the number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Nic => "nic",
            Self::Nvme => "nvme",
        }
    }
}

impl Function {
    /// Which kind of device it is, if it is counted.
    pub fn kind(&self) -> Option<Kind> {
        // Apple's controllers have another class, and are NVMe to Linux.
        if self.driver.as_deref() == Some("nvme") {
            return Some(Kind::Nvme);
        }
        match self.class?.to_be_bytes() {
            // A server's management controller shows a screen, too, but has no memory for other
            // devices.
            [0x03, _] if self.vendor == Some(0x1a03) || self.vendor == Some(0x102b) => None,
            [0x03 | 0x12, _] => Some(Kind::Gpu),
            [0x02, _] | [0x0c, 0x06] => Some(Kind::Nic),
            [0x01, 0x08] => Some(Kind::Nvme),
            _ => None,
        }
    }
}

impl Machine {
    /// Name and function of everything that is counted, in the order of addresses. Virtual functions are left out: how
    /// many there are changes.
    pub fn counted(&self) -> Vec<(String, &Function)> {
        let mut counts = [0_usize; Kind::ALL.len()];
        let mut counted = Vec::new();
        for function in &self.functions {
            let Some(kind) = function.kind().filter(|_| function.physical_function.is_none())
            else {
                continue;
            };
            let count = &mut counts[kind as usize];
            counted.push((format!("{}{count}", kind.name()), function));
            *count += 1;
        }
        counted
    }

    /// The function that `name` stands for: an address with or without its segment, `gpu0`, `nic1`, `nvme2` in the order
    /// of addresses, or what its driver called it (`eth0`, `mlx5_0`, `card1`).
    ///
    /// The kernel numbers NVMe controllers itself, not always in that order: where its number and ours lead to different
    /// functions, `nvme0` is ambiguous.
    ///
    /// # Errors
    ///
    /// Nothing has this name, or several functions have it.
    pub fn find(&self, name: &str) -> Result<&Function, FindError> {
        let mut found: Vec<&Function> = Vec::new();
        if let Ok(address) = name.parse::<Address>() {
            let explicit = name.matches(':').count() == 2;
            found.extend(self.functions.iter().filter(|function| {
                let at = function.address;
                if explicit { at == address } else { Address { segment: 0, ..at } == address }
            }));
            // Without a segment, 0000 is meant where it has such a function.
            if let Some(first) = found.first().filter(|first| first.address.segment == 0) {
                return Ok(first);
            }
        } else {
            let counted = self.counted();
            found.extend(counted.iter().filter(|(known, _)| known == name).map(|(_, of)| *of));
            let named = |function: &&Function| function.names.all().any(|known| known == name);
            found.extend(self.functions.iter().filter(named));
            found.sort_by_key(|function| function.address);
            found.dedup_by_key(|function| function.address);
        }
        match found.as_slice() {
            [only] => Ok(only),
            [] => Err(FindError::Nothing { name: name.to_owned(), known: self.known() }),
            several => Err(FindError::Ambiguous {
                name: name.to_owned(),
                candidates: several.iter().map(|function| function.address).collect(),
            }),
        }
    }

    /// Names that exist, for a hint.
    fn known(&self) -> Vec<String> {
        self.counted().into_iter().map(|(name, _)| name).take(20).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let function = |address: &str, class: &str, more: &str| {
            format!(r#"{{ "address": "{address}", "class": "{class}", "vendor": "1234" {more} }}"#)
        };
        let functions = [
            function("0000:01:00.0", "0300", r#", "names": { "drm": ["card1"] }"#),
            function("0000:02:00.0", "0108", r#", "names": { "nvme": ["nvme1"] }"#),
            function("0000:03:00.0", "0108", r#", "names": { "nvme": ["nvme0"] }"#),
            function("0000:04:00.0", "0200", r#", "names": { "network": ["eth0"] }"#),
            function("0000:04:00.1", "0200", r#", "physical-function": "0000:04:00.0" "#),
            function("0000:05:00.0", "1200", ""),
            function("0000:06:00.0", "0300", "").replace("1234", "1a03"),
            function("0001:01:00.0", "0200", ""),
            function("0001:07:00.0", "0108", ""),
            function("0002:07:00.0", "0108", r#", "names": { "nvme": ["nvme7"] }"#),
        ];
        let text = format!(
            r#"{{ "schema": "peerdma-machine/1", "functions": [{}] }}"#,
            functions.join(",")
        );
        Machine::from_json(&text).unwrap()
    }

    #[test]
    fn what_the_nvme_driver_is_bound_to_is_an_nvme_controller() {
        let kind = |class: &str, driver: &str| {
            let text = format!(
                r#"{{ "schema": "peerdma-machine/1", "functions": [{{ "address": "0000:04:00.0",
                   "class": "{class}", "driver": "{driver}" }}] }}"#
            );
            Machine::from_json(&text).unwrap().functions[0].kind()
        };
        assert_eq!(kind("0180", "nvme"), Some(Kind::Nvme));
        assert_eq!(kind("0180", "ahci"), None);
        assert_eq!(kind("0108", "vfio-pci"), Some(Kind::Nvme), "it stays one");
        assert_eq!(kind("0200", "nvmet"), Some(Kind::Nic), "another driver's name");
    }

    #[test]
    fn names_lead_to_functions() {
        let machine = machine();
        let of = |name: &str| machine.find(name).map(|function| function.address.to_string());
        for (name, address) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("gpu0", "0000:01:00.0"),
            ("card1", "0000:01:00.0"),
            ("gpu1", "0000:05:00.0"),
            ("nic0", "0000:04:00.0"),
            ("eth0", "0000:04:00.0"),
            ("nic1", "0001:01:00.0"),
            ("nvme2", "0001:07:00.0"),
            ("nvme7", "0002:07:00.0"),
        ] {
            assert_eq!(of(name).as_deref(), Ok(address), "{name}");
        }
    }

    #[test]
    fn what_may_mean_several_is_refused_with_all_of_them() {
        let machine = machine();
        let of = |name: &str| machine.find(name).unwrap_err().to_string();
        assert_eq!(of("nvme0"), "\"nvme0\" may be any of 0000:02:00.0, 0000:03:00.0");
        assert_eq!(of("07:00.0"), "\"07:00.0\" may be any of 0001:07:00.0, 0002:07:00.0");
        let nothing = of("gpu2");
        assert!(nothing.contains("gpu0, nvme0, nvme1, nic0, gpu1"), "{nothing}");
        assert!(of("0000:07:00.0").contains("no function is called"));
    }
}
