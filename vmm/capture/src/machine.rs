//! The record of a machine, and its JSON form.

use serde::{Deserialize, Serialize};

use crate::{Address, Error, Function};

/// Name and version of the record's format. A later minor version is `peerdma-machine/1.N` and may have more fields.
pub const SCHEMA: &str = "peerdma-machine/1";

/// Most functions that a record may have: as many as one segment can.
pub(crate) const MAX_FUNCTIONS: usize = 65_536;

/// What a machine has on PCIe, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// [`SCHEMA`].
    pub schema: String,
    /// What it was read from, in a few words: `sysfs`, `lspci -vvv`.
    #[serde(default)]
    pub source: String,
    /// The kernel that ran.
    #[serde(default)]
    pub kernel: Kernel,
    /// The processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// The root buses that are known, in order.
    #[serde(default)]
    pub roots: Vec<Root>,
    /// All functions, in the order of their addresses.
    pub functions: Vec<Function>,
    /// What could not be read, and why it matters.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// The kernel that ran on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kernel {
    /// Its release, `6.12.9-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Whether it was built with `CONFIG_PCI_P2PDMA`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2pdma: Option<bool>,
    /// Whether any function is in an IOMMU group, which says that the kernel uses an IOMMU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iommu_groups: Option<bool>,
    /// Its command line: only the parameters that PCI and IOMMU code reads, unless all was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
}

/// The processor, as CPUID has it and `/proc/cpuinfo` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Family, with the extended family added: 0x19 for Zen 3 and 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u32>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<u32>,
}

/// A root bus: what a host bridge leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Root {
    /// Segment.
    pub segment: u32,
    /// Bus number.
    pub bus: u8,
}

/// Something that could not be read, or that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Note {
    /// A sentence: what is not known, why it matters, what to do about it.
    pub text: String,
    /// The functions that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<Address>,
    /// The line of the text, from 1 on; the first if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl Machine {
    /// A machine from its record in JSON. Fields that this version does not know are left out.
    ///
    /// # Errors
    ///
    /// Not JSON, another schema, or a record that contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let json = |error: serde_json::Error| Error::Json {
            line: error.line(),
            column: error.column(),
            what: error.to_string(),
        };
        let head: Head = serde_json::from_str(text).map_err(json)?;
        if !knows(&head.schema) {
            return Err(Error::Schema(head.schema.chars().take(100).collect()));
        }
        let machine: Self = serde_json::from_str(text).map_err(json)?;
        machine.check()?;
        Ok(machine)
    }

    /// The record in JSON, one field a line.
    ///
    /// # Errors
    ///
    /// None in practice: the record has nothing that JSON cannot say.
    pub fn to_json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| Error::Record(error.to_string()))
    }

    /// The function at `address`.
    pub fn at(&self, address: Address) -> Option<&Function> {
        let index = self.functions.binary_search_by_key(&address, |function| function.address);
        self.functions.get(index.ok()?)
    }

    /// Functions in order, each once, parents present and without a circle.
    fn check(&self) -> Result<(), Error> {
        if self.functions.len() > MAX_FUNCTIONS {
            return Err(Error::Record(format!("more than {MAX_FUNCTIONS} functions")));
        }
        if self.functions.is_empty() {
            return Err(Error::Record("a record without functions".into()));
        }
        if let Some(pair) =
            self.functions.windows(2).find(|pair| pair[0].address >= pair[1].address)
        {
            let what = "is not behind the one before it: functions are in order, each once";
            return Err(Error::Record(format!("function {} {what}", pair[1].address)));
        }
        for function in &self.functions {
            self.check_parents(function)?;
        }
        self.check_text()
    }

    /// Text from a file ends up in terminals, where control characters do things.
    fn check_text(&self) -> Result<(), Error> {
        let kernel = [&self.kernel.release, &self.kernel.command_line];
        let cpu = self.cpu.iter().filter_map(|cpu| cpu.vendor.as_ref());
        let all = kernel.into_iter().flatten().chain(cpu).chain([&self.source]);
        let notes = self.notes.iter().map(|note| &note.text);
        let functions = self.functions.iter().flat_map(|function| {
            let own = function.driver.iter().chain(&function.description).map(String::as_str);
            own.chain(function.names.all())
        });
        let mut texts = all.chain(notes).map(String::as_str).chain(functions);
        match texts.find(|text| text.chars().any(char::is_control)) {
            Some(text) => Err(Error::Record(format!("{text:?} has control characters"))),
            None => Ok(()),
        }
    }

    fn check_parents(&self, function: &Function) -> Result<(), Error> {
        let mut at = function;
        // Bus numbers grow from a bridge to what is below it, so no path is longer than they are many.
        for _ in 0..256 {
            let crate::Parent::Below(above) = at.parent else { return Ok(()) };
            let Some(next) = self.at(above) else {
                let text =
                    format!("function {}: its parent {above} is not in the record", at.address);
                return Err(Error::Record(text));
            };
            at = next;
        }
        Err(Error::Record(format!("function {}: its parents form a circle", function.address)))
    }
}

/// Whether a record of this schema can be read here: version 1, of any minor version.
fn knows(schema: &str) -> bool {
    let Some(rest) = schema.strip_prefix(SCHEMA) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_empty() || rest.strip_prefix('.').is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{ "schema": "peerdma-machine/1", "functions": [
        { "address": "0000:00:01.0", "vendor": "8086", "device": "2030", "parent": "root" },
        { "address": "0000:01:00.0", "parent": { "below": "0000:00:01.0" } } ] }"#;

    #[test]
    fn a_record_leads_back_to_itself() {
        let machine = Machine::from_json(SMALL).unwrap();
        assert_eq!(machine.functions[0].vendor, Some(0x8086));
        assert_eq!(Machine::from_json(&machine.to_json().unwrap()).unwrap(), machine);
    }

    #[test]
    fn a_later_minor_version_may_have_more_and_another_major_is_refused() {
        let with = |schema: &str| {
            let text = SMALL.replace("peerdma-machine/1\"", &format!("{schema}\", \"new\": [1]"));
            Machine::from_json(&text)
        };
        assert!(with("peerdma-machine/1").is_ok());
        assert!(with("peerdma-machine/1.7").is_ok());
        for other in ["peerdma-machine/2", "peerdma-machine/10", "peerdma-machine/1.", "x", ""] {
            assert!(matches!(with(other), Err(Error::Schema(_))), "{other}");
        }
    }

    #[test]
    fn records_that_contradict_themselves_are_refused() {
        let error = |from: &str, to: &str| {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL);
            Machine::from_json(&text).unwrap_err().to_string()
        };
        let order = error("0000:01:00.0", "0000:00:00.0");
        assert!(order.contains("0000:00:00.0 is not behind"), "{order}");
        assert!(error("0000:01:00.0", "0000:00:01.0").contains("each once"));
        assert!(
            error("\"below\": \"0000:00:01.0\"", "\"below\": \"0000:02:01.0\"")
                .contains("0000:02:01.0 is not in the record")
        );
        assert!(error("\"root\"", "{ \"below\": \"0000:01:00.0\" }").contains("circle"));
        let place = error("\"8086\"", "\"80860\"");
        assert!(place.contains("line 2") && place.contains("four hex"), "{place}");
        assert!(error("\"8086\"", "\"+086\"").contains("four hex"));
        let control = error("\"8086\"", "\"8086\", \"driver\": \"x\\u001b[2J\"");
        assert!(control.contains("control characters") && !control.contains('\x1b'), "{control}");
    }
}
