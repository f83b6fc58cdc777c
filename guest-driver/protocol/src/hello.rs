//! The answer to `hello`: the purpose of a guest.

use serde::{Deserialize, Serialize};

use super::Expected;

/// What the agent does once the system is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Run the built-in tests.
    Test,
    /// Run the user's command; its status is the guest's.
    Command,
    /// An interactive shell on the console.
    #[default]
    Shell,
}

/// Where the command's standard input comes from. It is a terminal in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// A user's terminal.
    #[default]
    Terminal,
    /// A file or a pipe, whose end comes as [`END_OF_INPUT`]: nothing is echoed.
    Pipe,
    /// Nowhere: it is at its end from the beginning.
    Nothing,
}

impl Input {
    fn is_terminal(&self) -> bool {
        *self == Self::Terminal
    }
}

/// What ends a terminal's input (VEOF, termios(3)), often enough for a line that is not complete, and for programs that
/// read once more.
pub const END_OF_INPUT: [u8; 4] = [4; 4];

/// A kernel module that the agent loads first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Where it lies in the initramfs.
    pub path: String,
    /// Its parameters, as for `insmod`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
}

/// What a guest is for. Keys that an agent does not know are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// What to do.
    pub mode: Mode,
    /// The scenario's name, for messages.
    pub scenario: String,
    /// Test groups or single tests (`GROUP` or `GROUP.NAME`) to run, in the agent's order. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The user's command and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The witness (see [`witness`](crate::witness)), loaded before everything else. A guest goes on without it where its
    /// kernel cannot have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Module>,
    /// Functions, `bb:dd.f`, whose drivers are bound anew behind the witness, so that it sees all their mappings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rebind: Vec<String>,
    /// Modules to load first, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
    /// Variables for the user's command or shell, `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// The names of the peer devices in the topology, by their number N of `/dev/peerdmaN`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// What Linux should make of the topology; nothing where no test asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// What time limits are stretched by, for slow kernels and machines; at least 1.
    #[serde(skip_serializing_if = "is_one")]
    pub time_factor: u32,
    /// Where the command's input comes from.
    #[serde(skip_serializing_if = "Input::is_terminal")]
    pub input: Input,
    /// Height of the terminal behind the serial console, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Width of that terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

impl Hello {
    /// A guest that does `mode` and nothing else.
    pub fn new(mode: Mode, scenario: impl Into<String>) -> Self {
        Self {
            mode,
            scenario: scenario.into(),
            groups: Vec::new(),
            command: Vec::new(),
            witness: None,
            rebind: Vec::new(),
            modules: Vec::new(),
            environment: Vec::new(),
            peers: Vec::new(),
            expected: None,
            time_factor: 1,
            input: Input::Terminal,
            rows: None,
            columns: None,
        }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new(Mode::default(), "")
    }
}

/// The default need not be said: an answer has a limit.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(factor: &u32) -> bool {
    *factor == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let mut hello = Hello::new(Mode::Command, "user");
        hello.command = vec!["/bin/sh".into(), "-c".into(), "echo \"a b\"\n".into()];
        hello.modules = vec![
            Module { path: "/lib/peerdma.ko".into(), parameters: String::new() },
            Module { path: "/lib/other.ko".into(), parameters: "a=1 b=2".into() },
        ];
        let line = serde_json::to_string(&hello).unwrap();
        assert_eq!(
            line,
            r#"{"mode":"command","scenario":"user","command":["/bin/sh","-c","echo \"a b\"\n"],"modules":[{"path":"/lib/peerdma.ko"},{"path":"/lib/other.ko","parameters":"a=1 b=2"}]}"#
        );
        assert_eq!(serde_json::from_str::<Hello>(&line).unwrap(), hello);
        hello.witness = Some(Module { path: "/lib/w.ko".into(), parameters: "callers=1".into() });
        hello.rebind = vec!["00:03.0".into()];
        hello.groups = vec!["copy".into()];
        hello.environment = vec!["A=b".into()];
        hello.peers = vec!["gpu".into(), "nic".into()];
        hello.time_factor = 3;
        hello.input = Input::Pipe;
        (hello.rows, hello.columns) = (Some(24), Some(80));
        let line = serde_json::to_string(&hello).unwrap();
        assert_eq!(serde_json::from_str::<Hello>(&line).unwrap(), hello);
    }

    #[test]
    fn missing_keys_have_defaults_unknown_ones_are_ignored_wrong_ones_refused() {
        let parse = |text: &str| serde_json::from_str::<Hello>(text);
        assert_eq!(parse("{}").unwrap(), Hello::default());
        assert_eq!(parse(r#"{"from-the-future":{}}"#).unwrap(), Hello::default());
        assert!(parse(r#"{"mode":"dance"}"#).is_err());
        assert!(parse(r#"{"modules":[3]}"#).is_err());
        assert!(parse("").is_err());
    }
}
