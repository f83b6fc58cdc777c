//! What a test cannot run without.

use super::topology::FirstPath;
use super::{Bench, Stop, Verdict};
use crate::device::{DEVICE, Peer, VENDOR};
use crate::sys::pci::Function;
use crate::sys::{kernel_config, leaks};
use crate::uapi;
use std::path::Path;

/// A need of a test, checked just before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The guest protocol: the test asks the VMM, or wants its verdict.
    Vmm,
    /// A peer device with the driver bound.
    Peer,
    /// Two of them.
    Peers,
    /// A device of another kind than peer device in the topology.
    Other,
    /// A feature of the driver, one of its `FEATURE_*` bits, and the kernel's option behind it.
    Feature(u32, &'static str),
    /// DMA addresses of the peers are translated.
    Translated,
    /// And unmapping takes effect at once.
    Strict,
    /// The peers are in IOMMU groups: something can translate for them, whatever it does for their driver.
    Iommu,
    /// Nothing translates, and the kernel bounces every mapping of system memory.
    Bounced,
    /// The kernel has a path for DMA from each of the first two peers to the other.
    Path,
    /// A file that the kernel offers, and the option behind it.
    File(&'static str, &'static str),
    /// A file that a module of this name offers, and the option that it takes: either may be what is missing.
    Module(&'static str, &'static str, &'static str),
    /// The kernel does not check its every access: the test's own time limits are not made for that.
    Unchecked,
    /// The kernel looks for lost memory.
    Kmemleak,
    /// The guest tells what its kernel maps.
    Witness,
}

impl Need {
    /// Whether it is met.
    ///
    /// # Errors
    /// A SKIP with the reason; a failure when something that should be there is broken.
    pub fn check(self, bench: &mut Bench<'_>) -> Verdict {
        let skip = |reason: String| Err(Stop::Skip(reason));
        match self {
            Self::Vmm if bench.vmm.is_none() => skip("the VMM does not answer; run this in a guest of peerdma".into()),
            Self::Vmm => Ok(()),
            Self::Peer => check_peers(bench, 1),
            Self::Peers => check_peers(bench, 2),
            Self::Other => match bench.hello()?.and_then(|hello| hello.expected) {
                Some(expected) if expected.others.is_empty() => {
                    skip("all devices of this topology are peer devices".into())
                }
                _ => Ok(()),
            },
            Self::Feature(bit, option) => {
                if bench.peer(0)?.info.features & bit != 0 {
                    return Ok(());
                }
                match kernel_config::option(option) {
                    Some(_) => Err(Stop::Fail(format!("{option} is set, but the driver says that it cannot"))),
                    None => skip(format!("this kernel lacks {option}")),
                }
            }
            Self::Translated if bench.peer(0)?.is_translated() && bench.peer(1)?.is_translated() => Ok(()),
            Self::Translated => skip("no IOMMU translates for the peer devices (CONFIG_VIRTIO_IOMMU, iommu.passthrough=0)".into()),
            Self::Strict if bench.peer(0)?.info.iommu == uapi::IOMMU_STRICT => Ok(()),
            Self::Strict => skip("unmapping does not take effect at once (iommu.strict=1)".into()),
            Self::Iommu if bench.peer(0)?.function().iommu_group().is_some() => Ok(()),
            Self::Iommu => skip("there is no IOMMU, so no address space that VFIO could fill".into()),
            Self::Bounced if !bench.peer(0)?.is_translated() && is_bounced() => Ok(()),
            Self::Bounced => skip("the kernel does not bounce mappings (swiotlb=force, without an IOMMU that translates)".into()),
            Self::Path => {
                let (one, other) = (Peer::open(0)?, Peer::open(1)?);
                if one.distance(&other)? >= 0 && other.distance(&one)? >= 0 {
                    // Where the VMM expects nothing, nothing can be said against it.
                    return match bench.hello()?.and_then(|hello| hello.expected) {
                        Some(_) => FirstPath::new(bench)?.carries(),
                        None => Ok(()),
                    };
                }
                let (one, other) = (one.name(), other.name());
                skip(format!("the kernel has no path for peer-to-peer DMA between {one} and {other}"))
            }
            Self::File(path, _) if Path::new(path).exists() => Ok(()),
            Self::File(path, option) => skip(format!("there is no {path} (this kernel lacks {option})")),
            Self::Module(path, ..) if Path::new(path).exists() => Ok(()),
            Self::Module(path, module, option) => {
                skip(missing(path, module, option, kernel_config::is_known(), kernel_config::option(option)))
            }
            Self::Unchecked if kernel_config::option("CONFIG_KASAN").is_none() => Ok(()),
            Self::Unchecked => skip("the test's own limit of 30 s for each of its parts is too short for a kernel with CONFIG_KASAN".into()),
            Self::Witness => Self::check_witness(),
            Self::Kmemleak if leaks::has_kmemleak() => Ok(()),
            Self::Kmemleak => skip("this kernel lacks CONFIG_DEBUG_KMEMLEAK".into()),
        }
    }
}

impl Need {
    /// Whether the witness is loaded.
    ///
    /// # Errors
    /// A SKIP if it is not.
    pub(super) fn check_witness() -> Verdict {
        if Path::new(super::bench::WITNESS).exists() {
            return Ok(());
        }
        Err(Stop::Skip("the witness is not loaded (--no-witness, or a kernel without it)".into()))
    }
}

/// Why a module's file is not there: what the kernel's configuration says of the option, if it says anything.
fn missing(path: &str, module: &str, option: &str, is_known: bool, value: Option<&str>) -> String {
    match (is_known, value) {
        (true, None) => format!("there is no {path}: this kernel lacks {option}"),
        (true, Some(_)) => format!(
            "there is no {path}: this kernel has {option}, but the module {module} is not loaded"
        ),
        (false, _) => format!(
            "there is no {path}: the module {module} is not loaded, or this kernel lacks \
             {option} (its configuration is unknown)"
        ),
    }
}

/// Whether the kernel command line says so.
fn is_bounced() -> bool {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "swiotlb=force")
}

/// n peers are present, or there is a good reason why not: the topology has fewer, or no module was loaded. A loaded
/// module without devices is a failure, never a SKIP.
fn check_peers(bench: &mut Bench<'_>, wanted: u32) -> Verdict {
    let is_there = |instance| Peer::path(instance).exists();
    if (0..wanted).all(is_there) {
        return Ok(());
    }
    if let Some(hello) = bench.hello()?
        && hello.peers.len() < wanted as usize
    {
        return Err(Stop::Skip(match hello.peers.len() {
            0 => "the topology has no peer device".into(),
            _ => "the topology has one peer device".into(),
        }));
    }
    let functions =
        Function::all()?.into_iter().filter(|function| function.is(VENDOR, DEVICE)).count();
    if !Path::new("/sys/module/peerdma").exists() {
        return Err(Stop::Skip("the module peerdma is not loaded".into()));
    }
    Err(Stop::Fail(format!(
        "the module is loaded and there are {functions} peer devices on the bus, but there is no {}",
        (0..wanted)
            .find(|instance| !is_there(*instance))
            .map(Peer::path)
            .unwrap_or_default()
            .display()
    )))
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn a_missing_module_is_not_blamed_on_an_option_that_is_set() {
        let reason = |is_known, value| missing("/dev/x", "x", "CONFIG_Y", is_known, value);
        assert!(reason(true, None).ends_with("this kernel lacks CONFIG_Y"));
        assert!(reason(true, Some("y")).ends_with("but the module x is not loaded"));
        let either = reason(false, None);
        assert!(either.contains("not loaded, or") && either.contains("CONFIG_Y"), "{either}");
    }
}
