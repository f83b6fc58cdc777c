//! What the agent learns from the kernel's command line, before it has found the VMM's port.
//!
//! Linux ignores parameters of modules that it does not have, so the word costs nothing.

/// By `peerdma test`: no user sits at the console, and an agent without an answer gives up.
pub const BY_TEST: &str = "guest_agent.run=test";
/// By `peerdma boot`: a user does, and a shell is useful even without an answer.
pub const BY_BOOT: &str = "guest_agent.run=boot";

/// Whether the kernel was started with `word` on its `command_line`. What follows `--` is not for the kernel.
pub fn is_started(command_line: &str, word: &str) -> bool {
    let mut words = command_line.split_ascii_whitespace().take_while(|word| *word != "--");
    words.any(|other| other == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_in_front_of_the_dashes_counts() {
        assert!(is_started("console=ttyS0 guest_agent.run=test quiet\n", BY_TEST));
        assert!(is_started("guest_agent.run=test -- x", BY_TEST));
        assert!(is_started("guest_agent.run=boot", BY_BOOT));
        for other in [
            "",
            "quiet\n",
            "guest_agent.run=",
            "guest_agent.run=tests",
            "x -- guest_agent.run=test",
        ] {
            assert!(!is_started(other, BY_TEST), "{other:?}");
        }
    }
}
