//! Kernel and processor, as `/proc`, boot logs and build configurations show them.

use crate::gather::{Gathered, name};

/// The longest command line that is kept. Linux takes 2048 bytes on x86, 4096 elsewhere.
const MAX_COMMAND_LINE: usize = 4096;

/// Parameters that PCI, IOMMU and DMA code reads, by the beginnings of their names.
const KEPT: [&str; 9] = [
    "pci",
    "iommu",
    "intel_iommu",
    "amd_iommu",
    "arm-smmu",
    "swiotlb",
    "vfio",
    "mem_encrypt",
    "nvme",
];

/// The command line: whole with `identity`, otherwise only what decides something here. Names of hosts, disks and
/// people are in the rest.
pub(crate) fn command_line(gathered: &mut Gathered, text: &str, line: usize, identity: bool) {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    let text: String = text.chars().take(MAX_COMMAND_LINE).collect();
    if identity {
        gathered.command_line.put(text, line);
        return;
    }
    let mut kept = Vec::new();
    let mut quoted = false;
    let parameters = text.split(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    for parameter in parameters {
        // The rest is for the first process.
        if parameter == "--" {
            break;
        }
        if KEPT.iter().any(|start| parameter.trim_start_matches('"').starts_with(start)) {
            kept.push(parameter);
        }
    }
    gathered.command_line.put(kept.join(" "), line);
}

/// The release, without the name of the host that `uname -a` has before it.
pub(crate) fn release(gathered: &mut Gathered, text: &str, line: usize) {
    let release = text.split_whitespace().find(|word| {
        let mut parts = word.split('.');
        let number = |part: Option<&str>| {
            part.is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        };
        word.starts_with(|c: char| c.is_ascii_digit())
            && number(parts.next())
            && number(parts.next())
    });
    if let Some(release) = release {
        gathered.release.put(name(release), line);
    }
}

/// A line of a build configuration. `CONFIG_PCI` shows that the configuration is there: an option that it lacks is off.
pub(crate) fn configuration(gathered: &mut Gathered, text: &str, line: usize) -> bool {
    let text = text.trim();
    match text {
        "CONFIG_PCI_P2PDMA=y" => gathered.p2pdma.put(true, line),
        "# CONFIG_PCI_P2PDMA is not set" | "CONFIG_PCI_P2PDMA=n" => {
            gathered.p2pdma.put(false, line)
        }
        "CONFIG_PCI=y" => gathered.has_configuration = true,
        _ => return false,
    }
    true
}

/// A line of `/proc/cpuinfo`, `lscpu`, or the boot log. Returns whether it was one.
pub(crate) fn line(gathered: &mut Gathered, text: &str, line: usize) -> bool {
    // Behind the time stamp of a log.
    let text = text.trim();
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((stamp, rest)) if stamp.trim().parse::<f64>().is_ok() => rest.trim(),
        _ => text,
    };
    if configuration(gathered, text, line) {
        return true;
    }
    for start in ["Command line: ", "Kernel command line: "] {
        if let Some(rest) = text.strip_prefix(start) {
            command_line(gathered, rest, line, false);
            return true;
        }
    }
    if let Some(rest) = text.strip_prefix("Linux version ") {
        release(gathered, rest, line);
        return true;
    }
    if text.starts_with("Linux ") && text.contains(" SMP ") {
        release(gathered, text, line);
        return true;
    }
    if let Some(rest) = text.strip_prefix("smpboot: CPU0: ") {
        booted(gathered, rest, line);
        return true;
    }
    let Some((key, value)) = text.split_once(':') else { return false };
    let value = value.trim();
    match key.trim() {
        "vendor_id" | "Vendor ID" => gathered.cpu_vendor.put(name(value), line),
        // Arm: a number instead of a name, and no family.
        "CPU implementer" => gathered.cpu_vendor.put(format!("arm-{}", name(value)), line),
        "cpu family" | "CPU family" => number(&mut gathered.cpu_family, value, line),
        "model" | "Model" if value.parse::<u32>().is_ok() => {
            number(&mut gathered.cpu_model, value, line);
        }
        _ => return false,
    }
    true
}

fn number(field: &mut crate::field::Field<u32>, value: &str, line: usize) {
    if let Ok(value) = value.parse() {
        field.put(value, line);
    }
}

/// `AMD EPYC 7763 64-Core Processor (family: 0x19, model: 0x1, stepping: 0x1)`.
fn booted(gathered: &mut Gathered, text: &str, line: usize) {
    let hex = |key: &str| {
        let rest = &text[text.find(key)? + key.len()..];
        let end = rest.find([',', ')'])?;
        u32::from_str_radix(&rest[..end], 16).ok()
    };
    let vendor = match text {
        _ if text.starts_with("AMD ") => "AuthenticAMD",
        _ if text.starts_with("Intel(R) ") || text.contains(" Intel(R) ") => "GenuineIntel",
        _ => return,
    };
    if let (Some(family), Some(model)) = (hex("family: 0x"), hex("model: 0x")) {
        gathered.cpu_vendor.put(vendor.into(), line);
        gathered.cpu_family.put(family, line);
        gathered.cpu_model.put(model, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Gathered {
        let mut gathered = Gathered::default();
        for (index, text) in text.lines().enumerate() {
            line(&mut gathered, text, index + 1);
        }
        gathered
    }

    #[test]
    fn of_the_command_line_only_what_decides_is_kept() {
        let all = "BOOT_IMAGE=/vmlinuz root=UUID=12-34 pci=realloc,noaer ro iommu.strict=1 hostname=secret \
                   dyndbg=\"file a b\" \"pcie_acs_override=downstream, multifunction\" intel_iommu=on -- iommu=x";
        let mut gathered = Gathered::default();
        command_line(&mut gathered, all, 1, false);
        let kept = "pci=realloc,noaer iommu.strict=1 \"pcie_acs_override=downstream, multifunction\" intel_iommu=on";
        assert_eq!(gathered.command_line.get().unwrap(), kept);
        let mut gathered = Gathered::default();
        command_line(&mut gathered, all, 1, true);
        assert!(gathered.command_line.get().unwrap().contains("secret"));
    }

    #[test]
    fn a_host_s_name_is_no_release() {
        let of = |text: &str| read(text).release.get().cloned();
        let uname =
            "Linux box7.example.org 5.15.0-91-generic #101-Ubuntu SMP Tue Nov 14 x86_64 GNU/Linux";
        assert_eq!(of(uname).as_deref(), Some("5.15.0-91-generic"));
        assert_eq!(
            of("[    0.000000] Linux version 6.8.0 (me@host) (gcc 12.2.0)").as_deref(),
            Some("6.8.0")
        );
        assert_eq!(of("Linux is nice"), None);
    }

    #[test]
    fn processors_are_known_from_proc_and_from_logs() {
        let of = |text: &str| {
            let read = read(text);
            (
                read.cpu_vendor.get().cloned(),
                read.cpu_family.get().copied(),
                read.cpu_model.get().copied(),
            )
        };
        let amd = (Some("AuthenticAMD".into()), Some(25), Some(1));
        let proc =
            "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(of(proc), amd);
        assert_eq!(of("Vendor ID:   AuthenticAMD\nCPU family:  25\nModel:       1\n"), amd);
        let log = "[    0.2] smpboot: CPU0: AMD EPYC 7763 64-Core Processor (family: 0x19, model: 0x1, stepping: 0x1)";
        assert_eq!(of(log), amd);
        let unknown =
            "[    0.2] smpboot: CPU0: Some Processor (family: 0x19, model: 0x1, stepping: 0x1)";
        assert_eq!(of(unknown), (None, None, None));
    }

    #[test]
    fn p2pdma_is_on_off_or_unknown() {
        let of = |text: &str| {
            let read = read(text);
            (read.p2pdma.get().copied(), read.has_configuration)
        };
        assert_eq!(of("CONFIG_PCI=y\nCONFIG_PCI_P2PDMA=y"), (Some(true), true));
        assert_eq!(of("# CONFIG_PCI_P2PDMA is not set"), (Some(false), false));
        assert_eq!(of("CONFIG_PCI=y"), (None, true));
        assert_eq!(of("CONFIG_PCI_P2PDMA_X=y"), (None, false));
    }
}
