//! `--rebind`: which functions' drivers are bound anew behind the witness.

use peerdma_suite::scenario::Scenario;
use peerdma_support::names::nearest_name;
use peerdma_topology::{Kind, Plan};

use super::Failure;

/// The functions, `bb:dd.f`, that `scenario` and `more` name, each once.
///
/// # Errors
/// For a name that no function of the plan has, and for functions that cannot do without their driver.
pub(super) fn functions(
    scenario: &Scenario,
    more: &[String],
    plan: &Plan,
) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for name in scenario.rebind.iter().chain(more) {
        let index = plan.find(name).ok_or_else(|| {
            let near = nearest_name(name, plan.functions.iter().map(|own| own.name.as_str()));
            let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
            Failure::usage(format_args!("--rebind {name}: no function has this name{near}"))
        })?;
        let Some(function) = plan.functions.get(index) else { continue };
        match function.kind {
            Kind::Peer(_) | Kind::Rng | Kind::Endpoint(..) | Kind::Device(_) => {}
            Kind::Iommu => {
                return Err(Failure::usage(format_args!(
                    "--rebind {name}: the guest cannot do without its IOMMU for a moment"
                )));
            }
            _ => {
                return Err(Failure::usage(format_args!(
                    "--rebind {name}: it is a bridge or a port, and maps nothing for DMA"
                )));
            }
        }
        let address = function.bdf.to_string();
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use peerdma_topology::Topology;

    use super::*;

    #[test]
    fn functions_are_named_or_numbered_and_some_have_to_stay() {
        let plan = Plan::new(&Topology::load("root-ports").unwrap(), true).unwrap();
        let scenario = |names: &[&str]| {
            let mut scenario = Scenario::select(&["user".to_owned()]).unwrap().remove(0);
            scenario.rebind = names.iter().map(|name| (*name).to_owned()).collect();
            scenario
        };
        let of = |names: &[&str], more: &[&str]| {
            let more: Vec<_> = more.iter().map(|name| (*name).to_owned()).collect();
            functions(&scenario(names), &more, &plan)
        };
        assert_eq!(of(&[], &[]).unwrap(), [""; 0]);
        let rng = plan.functions[plan.find("virtio-rng").unwrap()].bdf.to_string();
        assert_eq!(of(&["virtio-rng"], &["peer0", &rng]).unwrap(), [rng.as_str(), "01:00.0"]);
        for (name, part) in [
            ("virtio-rgn", "did you mean \"virtio-rng\"?"),
            ("virtio_rng", "did you mean \"virtio-rng\"?"),
            ("1f:00.0", "no function has this name"),
            ("virtio-iommu", "cannot do without its IOMMU"),
            ("port0", "is a bridge or a port"),
        ] {
            let error = of(&[], &[name]).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}
