//! The guest's kernel command line.

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
const TESTED: &[&str] = &["loglevel=5", "oops=panic"];
/// Only what brings the kernel down: somebody wants to read a program's output, and `dmesg` has the rest.
const USED: &[&str] = &["loglevel=2"];

/// The parameters of a scenario's guest, one each. `used` is for somebody who sits in front of it.
pub fn parameters(scenario: &Scenario, used: bool) -> Vec<String> {
    let common = COMMON
        .iter()
        .chain(if used { USED } else { TESTED })
        .map(|parameter| (*parameter).to_owned());
    let iommu = scenario.iommu.parameters().iter().copied().chain(scenario.swiotlb.parameter());
    common.chain(iommu.map(str::to_owned)).chain(scenario.parameters.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_the_last_word() {
        let text = "name='a'\ndescription='b'\ntimeout=5\niommu='lazy'\nparameters=['loglevel=8']";
        let scenario = Scenario::parse("f", text).unwrap();
        let all = parameters(&scenario, false);
        assert_eq!(all.last().unwrap(), "loglevel=8");
        assert!(all.contains(&"iommu.strict=0".to_owned()));
        let text = "name='a'\ndescription='b'\ntimeout=5\niommu='none'\nswiotlb='force'";
        let bounced = parameters(&Scenario::parse("f", text).unwrap(), false);
        assert_eq!(bounced.last().unwrap(), "swiotlb=force");
        assert!(!bounced.iter().any(|parameter| parameter.starts_with("iommu")));
        assert!(all.join(" ").len() < 1024);
    }
}
