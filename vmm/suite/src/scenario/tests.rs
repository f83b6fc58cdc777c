use device_models::pci::Bdf;
use peerdma_topology::linux::Guest;
use peerdma_topology::{Plan, Topology};

use super::*;
use crate::hello::{self, Expected};
use crate::parameters::{Purpose, parameters};

#[test]
fn the_scenarios_that_come_with_the_program_are_right() {
    let all = Scenario::all().unwrap();
    let names = all.iter().map(|scenario| scenario.family.as_ref().unwrap_or(&scenario.name));
    let mut names: Vec<_> = names.map(String::as_str).collect();
    names.dedup();
    assert_eq!(names, BUILT_IN.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    assert!(all.iter().all(|scenario| !scenario.description.is_empty()));
    assert!(!Scenario::select(&[]).unwrap().is_empty());
}

/// What the VMM expects of a scenario's kernel, and where the peer devices are.
fn expected(scenario: &Scenario) -> (Expected, Vec<Bdf>) {
    let mut topology = Topology::load(&scenario.topology).unwrap();
    for device in &scenario.devices {
        topology.add(device).unwrap();
    }
    let plan = Plan::new(&topology, scenario.iommu.has_iommu()).unwrap();
    let peers = plan.peers().into_iter().map(|peer| plan.functions[peer].bdf).collect();
    let parameters = parameters(scenario, Purpose::Tests);
    let guest = Guest { iommu: scenario.iommu, cpu: topology.cpu, parameters };
    (hello::expected(&plan, &guest), peers)
}

#[test]
fn an_engine_is_a_third_party_in_every_preset_and_changes_nothing_for_the_peers() {
    const GROUP: &str = "third-party";
    let all = Scenario::all().unwrap();
    let has = |scenario: &Scenario, group| scenario.groups.iter().any(|name| name == group);
    for preset in Topology::presets() {
        let is_it = |scenario: &&Scenario| scenario.topology.split('+').next() == Some(preset);
        assert!(all.iter().filter(is_it).any(|scenario| has(scenario, GROUP)), "{preset}");
    }
    for scenario in all.iter().filter(|scenario| has(scenario, "topology")) {
        let name = &scenario.name;
        let (with, places) = expected(scenario);
        let without = Scenario { devices: Vec::new(), ..scenario.clone() };
        let (without, places_without) = expected(&without);
        assert_eq!(places, places_without, "{name}");
        assert_eq!(with.paths, without.paths, "{name}");
        let shared = |groups: &[u32]| -> Vec<bool> {
            let pairs = groups.iter().flat_map(|one| groups.iter().map(move |two| one == two));
            pairs.collect()
        };
        assert_eq!(shared(&with.groups), shared(&without.groups), "{name}");
        assert_eq!(has(scenario, GROUP), !with.others.is_empty(), "{name}");
    }
}

#[test]
fn the_witness_is_on_unless_a_scenario_says_otherwise() {
    let built = Module { path: "/lib/modules/w.ko".into(), parameters: String::new() };
    let of = |text: &str| {
        let scenario = Scenario::parse("t.toml", text)?;
        Ok::<_, ScenarioError>(scenario.witness.module(Some(&built)))
    };
    assert_eq!(of("").unwrap(), Some(built.clone()));
    assert_eq!(of("witness = 'on'").unwrap(), Some(built.clone()));
    assert_eq!(of("witness = 'off'").unwrap(), None);
    let callers = of("witness = 'callers'").unwrap().unwrap();
    assert_eq!((callers.path, &*callers.parameters), (built.path.clone(), "callers=1"));
    assert!(of("witness = 'maybe'").is_err());
    assert_eq!(Witness::Callers.module(None), None);
}

#[test]
fn a_list_of_modes_stands_for_a_scenario_each() {
    let names = |wanted: &[&str]| -> Vec<String> {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Scenario::select(&wanted).unwrap().into_iter().map(|scenario| scenario.name).collect()
    };
    let all = ["bugs-strict", "bugs-lazy", "bugs-passthrough", "bugs-none"];
    assert_eq!(names(&["bugs"]), all);
    assert_eq!(names(&["bugs-none"]), ["bugs-none"]);
    assert_eq!(names(&["bugs-lazy", "bugs"]), ["bugs-lazy", all[0], all[2], all[3]]);
    // The topology's family has no list.
    assert_eq!(names(&["topology"]), ["topology"]);
    let error = Scenario::select(&["bgus".into()]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"bugs\"?"), "{error}");

    let text = "name='x'\niommu=['none','lazy']\ncommand=['t']\n";
    let own = Scenario::parse_all("f", text).unwrap();
    let own: Vec<_> = own.iter().map(|s| (s.name.as_str(), s.iommu.name())).collect();
    assert_eq!(own, [("x-none", "none"), ("x-lazy", "lazy")]);
}

#[test]
fn names_select_once_each_and_a_wrong_one_gets_a_hint() {
    let chosen = Scenario::select(&["user".into(), "basic".into(), "user".into()]).unwrap();
    assert_eq!(chosen.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["user", "basic"]);
    let error = Scenario::select(&["baisc".into()]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"basic\"?"), "{error}");
    let error = Scenario::select(&["zzzzqq".into()]).unwrap_err().to_string();
    assert!(!error.contains("did you mean") && error.contains("--list"), "{error}");
}

#[test]
fn bad_files_say_what_is_wrong() {
    let base = "name='a'\ndescription='b'\ntimeout=5\n";
    assert!(Scenario::parse("f", base).is_ok());
    for (text, part) in [
        ("command=['x']\ngroups=['copy']", "not both"),
        ("expect=['iommu.stale']", "needs a command"),
        ("drivers=['.']", "for a command"),
        ("command=['x']\nexpect=['iommu.stael']", "did you mean iommu.stale?"),
        ("command=['x']\nexpect=['iommu.stale 0']", "under allow"),
        ("name='../x'\ndescription='b'\ntimeout=5", "name must be"),
        ("name='a'\ndescription='b'\ntimeout=0", "timeout is in seconds"),
        ("name='a'\ndescription='b'\ntimeout=5\nparameters=['a b']", "without blanks"),
        ("name='a'\ndescription='b'\ntimeout=5\ntimeuot=6", "timeuot"),
        ("name='a'\ndescription='b'\ntimeout=5\niommu='nnoe'", "nnoe"),
        ("name=", "f"),
    ] {
        let error = Scenario::parse("f", text).unwrap_err();
        let error = format!("{error}");
        assert!(error.contains(part), "{text:?}: {error}");
    }
    for (modes, part) in [("[]", "empty"), ("['none','none']", "twice"), ("['nnoe']", "nnoe")] {
        let error = Scenario::parse_all("f", &format!("{base}iommu={modes}")).unwrap_err();
        assert!(error.to_string().contains(part), "{modes}: {error}");
    }
    assert_eq!(Scenario::parse("f", base).unwrap().limit(0), 5);
    assert_eq!(Scenario::parse("f", base).unwrap().limit(u64::MAX), u64::MAX);
}

#[test]
fn a_file_of_the_user_s_own_finds_what_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pull-it-out.toml");
    let text = "topology='mine.toml'\ndrivers=['.', '/abs.ko']\nfiles=['t.sh:/bin/t']\ncommand=['t']\n\
                expect=['pci.link-down:peer0']\nallow=['pci.no-target']\n";
    std::fs::write(&path, text).unwrap();
    let scenario = Scenario::load(&path).unwrap().remove(0);
    assert_eq!((scenario.name.as_str(), scenario.timeout), ("pull-it-out", 600));
    assert_eq!(scenario.topology, folder.path().join("mine.toml").to_string_lossy());
    assert_eq!(scenario.drivers, [folder.path().join("."), "/abs.ko".into()]);
    let files = scenario.own_files().unwrap();
    assert_eq!(files[0].host, folder.path().join("t.sh"));
    assert_eq!((scenario.expect[0].least, scenario.allow[0].least), (1, 0));
    let name = path.to_string_lossy().into_owned();
    assert_eq!(Scenario::select(std::slice::from_ref(&name)).unwrap(), [scenario]);
    assert!(Scenario::select(&[name.clone(), name.clone()]).is_err(), "twice");
    std::fs::write(&path, "name='basic'\ngroups=['copy']\n").unwrap();
    for both in [[name.clone(), "basic".into()], ["basic".into(), name]] {
        assert!(Scenario::select(&both).is_err(), "{both:?}");
    }
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(Scenario::load(&path).unwrap_err().to_string().contains("larger than 1 MiB"));
    assert!(Scenario::load(folder.path()).is_err() && Scenario::load(Path::new("/no")).is_err());
    // A preset is not a file.
    std::fs::write(&path, "topology='switch'\ngroups=['copy']\n").unwrap();
    assert_eq!(Scenario::load(&path).unwrap()[0].topology, "switch");
}
