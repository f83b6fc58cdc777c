//! What is printed when a guest has been frozen at a finding.

use peerdma_machine::runtime::RuntimeBus;

use super::judge::Stopped;

/// The scene, a line each: the finding, what happened before it, and the function concerned.
pub(super) fn lines(stopped: &Stopped, bus: &RuntimeBus) -> Vec<String> {
    let Stopped { finding, text, before } = stopped;
    let mut lines = vec![format!("the guest was frozen at: {text}")];
    if !before.is_empty() {
        lines.push("before it, the latest last:".into());
    }
    lines.extend(before.iter().map(|event| format!("  {event}")));
    lines.extend(bus.with(|system| {
        let of = finding.transaction.map(|transaction| transaction.function);
        let function = of.or_else(|| system.function(&finding.function));
        let address = finding.transaction.map(|transaction| transaction.address);
        function.map(|function| system.scene(function, address)).unwrap_or_default()
    }));
    lines.push(format!(
        "look further: `peerdma findings {}` explains the class; --record writes a trace that ends here, for \
         `peerdma replay`; --witness callers names the functions that map",
        finding.class
    ));
    lines
}
