//! The guest's kernel command line.

use guest_protocol::started;

use super::scenario::Scenario;

/// What every guest gets. Most of it saves time where the guest's processor is emulated.
const COMMON: &[&str] = &[
    "console=ttyS0",
    // A panic is a reset, which ends the run.
    "panic=-1",
    "printk.time=1",
    // The tests read the log when each of them ends, and what is overwritten until then is lost.
    "log_buf_len=1M",
    "tsc=reliable",
    "no_timer_check",
    "random.trust_cpu=on",
    "nokaslr",
    "8250.nr_uarts=1",
    "i8042.noprobe",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    // Where the IOMMU's driver is a module, devices wait for it; on a busy machine ten seconds are soon over.
    "deferred_probe_timeout=60",
];

/// Warnings and worse on the console: each character costs an exit, and nothing less is worth it.
const TESTED: &[&str] = &["loglevel=5", "oops=panic", started::BY_TEST];
/// Only what brings the kernel down: the user wants to read a program's output, and `dmesg` has the
/// rest.
const USED: &[&str] = &["loglevel=2", started::BY_BOOT];

/// Where no test asks the leak detector, its records are not read, and it records each allocation:
/// half a minute of a debug kernel's time for each I/OAT channel, which has 65536 descriptors.
const NO_LEAK_DETECTOR: &str = "kmemleak=off";
/// The group whose tests ask it.
const LEAKS: &str = "leaks";

/// What a guest is booted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The scenario's tests.
    Tests,
    /// A user's test, which takes their place.
    OwnTest,
    /// A user sits at the console, or reads what a command prints.
    Use,
}

/// Whether there are tests and none of them asks the leak detector. Groups may be narrowed down to a test of theirs.
fn is_detector_idle(scenario: &Scenario, purpose: Purpose) -> bool {
    let is_asking = |group: &String| group.split('.').next() == Some(LEAKS);
    let is_tested = purpose == Purpose::Tests && !scenario.groups.is_empty();
    is_tested && !scenario.groups.iter().any(is_asking)
}

/// The parameters of a scenario's guest, one each.
pub fn parameters(scenario: &Scenario, purpose: Purpose) -> Vec<String> {
    let common = COMMON
        .iter()
        .chain(if purpose == Purpose::Use { USED } else { TESTED })
        .map(|parameter| (*parameter).to_owned());
    let detector = is_detector_idle(scenario, purpose).then(|| NO_LEAK_DETECTOR.to_owned());
    let iommu = scenario.iommu.parameters().iter().copied().chain(scenario.swiotlb.parameter());
    common
        .chain(iommu.map(str::to_owned))
        .chain(detector)
        .chain(scenario.parameters.iter().cloned())
        .collect()
}

/// The parameters in a text as the kernel takes a command line apart (`next_arg()`): at spaces, but not between quotation
/// marks.
pub fn words(text: &str) -> Vec<String> {
    let mut quoted = false;
    let at_space = |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    };
    text.split(at_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_the_last_word() {
        let text = "name='a'\ndescription='b'\ntimeout=5\niommu='lazy'\nparameters=['loglevel=8']";
        let scenario = Scenario::parse("f", text).unwrap();
        let all = parameters(&scenario, Purpose::Tests);
        assert_eq!(all.last().unwrap(), "loglevel=8");
        assert!(all.contains(&"iommu.strict=0".to_owned()));
        let text = "name='a'\ndescription='b'\ntimeout=5\niommu='none'\nswiotlb='force'";
        let bounced = parameters(&Scenario::parse("f", text).unwrap(), Purpose::Tests);
        assert_eq!(bounced.last().unwrap(), "swiotlb=force");
        assert!(!bounced.iter().any(|parameter| parameter.starts_with("iommu")));
        assert!(all.join(" ").len() < 1024);
    }

    #[test]
    fn the_agent_learns_whether_somebody_sits_in_front_of_it() {
        let scenario = Scenario::parse("f", "name='a'\ndescription='b'\ntimeout=5").unwrap();
        let is_unattended =
            |purpose| parameters(&scenario, purpose).contains(&started::BY_TEST.into());
        assert!(is_unattended(Purpose::Tests) && is_unattended(Purpose::OwnTest));
        assert!(!is_unattended(Purpose::Use));
    }

    #[test]
    fn a_text_with_several_parameters_is_taken_apart() {
        assert_eq!(words(" quiet  pci=noats\n"), ["quiet", "pci=noats"]);
        assert_eq!(words(r#"dyndbg="file a.c +p" x"#), [r#"dyndbg="file a.c +p""#, "x"]);
        assert_eq!(words(" "), Vec::<String>::new());
    }

    #[test]
    fn leaks_are_looked_for_where_somebody_asks_or_runs_what_is_theirs() {
        let is_off = |groups: &str, purpose| {
            let text = format!("name='a'\ndescription='b'\ntimeout=5\ngroups={groups}");
            let scenario = Scenario::parse("f", &text).unwrap();
            parameters(&scenario, purpose).iter().any(|parameter| parameter == NO_LEAK_DETECTOR)
        };
        let is_off_for_tests = |groups| is_off(groups, Purpose::Tests);
        assert!(is_off_for_tests("['matrix']") && is_off_for_tests("['copy', 'faults.leaks']"));
        assert!(!is_off_for_tests("['copy', 'leaks']") && !is_off_for_tests("['leaks.kmemleak']"));
        assert!(!is_off("['matrix']", Purpose::OwnTest) && !is_off("[]", Purpose::Use));
    }
}
