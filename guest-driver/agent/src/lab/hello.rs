//! The answer to `hello`: what this guest is for.

use serde::Deserialize;

/// What the agent does after it has set the system up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// A kernel module to load.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ModuleForm")]
pub struct Module {
    /// Where it lies in the initramfs.
    pub path: String,
    /// Its parameters, as on the command line of `insmod`.
    pub parameters: String,
}

/// A module may be named by a bare string, `PATH [PARAMETERS]`, or by an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum ModuleForm {
    Line(String),
    Object {
        path: String,
        #[serde(default)]
        parameters: String,
    },
}

impl From<ModuleForm> for Module {
    fn from(form: ModuleForm) -> Self {
        match form {
            ModuleForm::Line(line) => {
                let (path, parameters) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
                Self { path: path.to_owned(), parameters: parameters.trim().to_owned() }
            }
            ModuleForm::Object { path, parameters } => Self { path, parameters },
        }
    }
}

/// By which way a request of one device must reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Turned around in a switch, by bus address.
    Bus,
    /// Through the host bridge.
    Host,
    /// There is none.
    None,
}

/// What kind of DMA address the kernel must give for another device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// What stands in the BAR.
    Bus,
    /// The CPUs' address.
    Phys,
    /// One that the IOMMU translates.
    Iova,
    /// It must refuse.
    None,
}

impl Address {
    /// The word for it at the lab port; none where there is no address.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Bus => Some("bus"),
            Self::Phys => Some("phys"),
            Self::Iova => Some("iova"),
            Self::None => None,
        }
    }
}

/// What the monitor expects of the kernel, from its topology alone. Peer devices are named by their number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Expected {
    /// The topology's name.
    pub topology: String,
    /// For each two peer devices: both, the way, the kernel's distance (negative: no way), the kind of DMA address.
    pub paths: Vec<(u32, u32, Way, i32, Address)>,
    /// Where the way is through the host bridge and a switch redirects part of the traffic only. By requester, a bit for
    /// each owner of memory: a request by bus address is turned around.
    #[serde(default)]
    pub direct_requests: Vec<u16>,
    /// Likewise: the data of reads comes back directly.
    #[serde(default)]
    pub direct_completions: Vec<u16>,
    /// The IOMMU group of each, by a number that means nothing by itself; empty without an IOMMU.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// What devices of other kinds may do with the memories of the peer devices.
    #[serde(default)]
    pub others: Vec<Other>,
}

/// What the monitor expects of DMA by a device of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Other {
    /// Its function, `05:00.0`.
    pub function: String,
    /// For each peer device, by number: the way into its memory, the kernel's distance, the kind of DMA address.
    pub paths: Vec<(Way, i32, Address)>,
    /// A bit for each peer device: see [`Expected::direct_requests`].
    #[serde(default)]
    pub direct_requests: u16,
    /// Likewise: see [`Expected::direct_completions`].
    #[serde(default)]
    pub direct_completions: u16,
}

/// What the monitor wants from this guest. Unknown keys are ignored, so that a newer monitor can say more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// What to do.
    pub mode: Mode,
    /// The scenario's name, for messages.
    pub scenario: String,
    /// Test groups or single tests (`GROUP` or `GROUP.NAME`) to run, in the table's order. Empty: all.
    pub groups: Vec<String>,
    /// The user's command and its arguments.
    pub command: Vec<String>,
    /// Modules to load first, in this order.
    pub modules: Vec<Module>,
    /// Variables for the user's command or shell, `NAME=VALUE`.
    pub environment: Vec<String>,
    /// What the monitor expects of the kernel's decisions, if it does.
    pub expected: Option<Expected>,
    /// What limits of time are stretched by, for slow kernels and machines; 0 as 1.
    pub time_factor: u32,
    /// Size of the terminal behind the serial console, when somebody sits there.
    pub rows: Option<u16>,
    /// See [`Hello::rows`].
    pub columns: Option<u16>,
}

impl Hello {
    /// Takes the JSON apart.
    ///
    /// # Errors
    /// What the parser did not like, with its position.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_answer() {
        let hello = Hello::parse(
            r#"{"mode":"command","scenario":"s","command":["/bin/true","-x"],"modules":["/m/peerdma.ko a=1 b=2",
               {"path":"/m/user.ko"}],"groups":["copy"],"rows":24,"columns":80,"from-the-future":{}}"#,
        )
        .unwrap();
        assert_eq!(hello.mode, Mode::Command);
        assert_eq!(hello.command, ["/bin/true", "-x"]);
        assert_eq!(
            hello.modules[0],
            Module { path: "/m/peerdma.ko".into(), parameters: "a=1 b=2".into() }
        );
        assert_eq!(
            hello.modules[1],
            Module { path: "/m/user.ko".into(), parameters: String::new() }
        );
        assert_eq!(hello.rows, Some(24));
    }

    #[test]
    fn expectations_are_short() {
        let hello = Hello::parse(
            r#"{"expected":{"topology":"t","paths":[[0,1,"host",4,"iova"],[0,2,"none",-1,"none"]],"groups":[4,5,5]}}"#,
        )
        .unwrap();
        let expected = hello.expected.unwrap();
        assert_eq!(expected.paths[1], (0, 2, Way::None, -1, Address::None));
        assert_eq!(expected.groups, [4, 5, 5]);
        assert!(expected.others.is_empty());
        let hello = Hello::parse(
            r#"{"expected":{"topology":"t","paths":[],"others":[{"function":"05:00.0","paths":[["bus",4,"bus"]],
               "direct_requests":1}]}}"#,
        )
        .unwrap();
        let other = &hello.expected.unwrap().others[0];
        assert_eq!((other.paths[0], other.direct_requests), ((Way::Bus, 4, Address::Bus), 1));
        assert!(
            Hello::parse(r#"{"expected":{"topology":"t","paths":[[0,1,"air",4,"iova"]]}}"#)
                .is_err()
        );
    }

    #[test]
    fn what_is_missing_has_a_default_and_what_is_wrong_is_refused() {
        assert_eq!(Hello::parse("{}").unwrap().mode, Mode::Shell);
        assert!(Hello::parse(r#"{"mode":"dance"}"#).is_err());
        assert!(Hello::parse(r#"{"modules":[3]}"#).is_err());
        assert!(Hello::parse("").is_err());
    }
}
