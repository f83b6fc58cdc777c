//! Presets, and files of the user's.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use peerdma_support::names::nearest_name;

use super::description::{TRANSLATED, Topology};
use super::plan::Plan;
use super::problem::{Problem, TopologyError};

/// The files, as they were when the program was built.
const BUILT_IN: &[(&str, &str)] = &[
    ("root-ports", include_str!("../topologies/root-ports.toml")),
    ("hot-plug", include_str!("../topologies/hot-plug.toml")),
    ("switch", include_str!("../topologies/switch.toml")),
    ("switch-acs", include_str!("../topologies/switch-acs.toml")),
    ("root-complex", include_str!("../topologies/root-complex.toml")),
    ("two-bridges", include_str!("../topologies/two-bridges.toml")),
    ("refused", include_str!("../topologies/refused.toml")),
    ("ioat", include_str!("../topologies/ioat.toml")),
];

/// Before the seed of a topology that is drawn at random.
const RANDOM: &str = "random-";

/// Longest file that is read, in bytes: the largest topology that there can be takes a few thousand.
const MAX_FILE: u64 = 1 << 20;

impl Topology {
    /// The names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of the preset called `name`, as a file would have it.
    pub fn preset_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(preset, _)| *preset == name).map(|(_, text)| *text)
    }

    /// The preset or the file called `name`, or what the seed of `random-SEED` gives; with `+translated` behind it, that variant.
    ///
    /// # Errors
    /// When there is none, or its text makes no sense: then with the line.
    pub fn load(name: &str) -> Result<Self, TopologyError> {
        let (plain, translated) = match name.strip_suffix(TRANSLATED) {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let (file, text) = find(plain)?;
        let topology = Self::parse(&file, &text)?;
        if !translated {
            return Ok(topology);
        }
        let topology = topology.translated();
        match Plan::new(&topology, true) {
            Ok(_) => Ok(topology),
            Err(problem) => Err(TopologyError::impossible(&file, &text, problem)),
        }
    }

    /// A problem that showed when the topology called `name` was built, with its place in the text.
    pub fn problem_in(name: &str, problem: Problem) -> TopologyError {
        let plain = name.strip_suffix(TRANSLATED).unwrap_or(name);
        let (file, text) = find(plain).unwrap_or_else(|_| (plain.to_owned(), String::new()));
        TopologyError::impossible(&file, &text, problem)
    }

    /// Reads a topology from the text of `file`.
    ///
    /// # Errors
    /// When it makes no sense: with the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, TopologyError> {
        let topology: Self =
            toml::from_str(text).map_err(|error| TopologyError::syntax(file, text, &error))?;
        match Plan::new(&topology, true) {
            Ok(_) => Ok(topology),
            Err(problem) => Err(TopologyError::impossible(file, text, problem)),
        }
    }
}

/// The name of the file and its text. What looks like a path, or is one, is not a misspelt preset.
fn find(name: &str) -> Result<(String, String), TopologyError> {
    if let Some(text) = Topology::preset_text(name) {
        return Ok((format!("{name}.toml"), text.to_owned()));
    }
    if let Some(seed) = name.strip_prefix(RANDOM).and_then(|seed| seed.parse().ok()) {
        // Lists and tables of numbers and texts: there is TOML for all of it.
        let text = toml::to_string(&Topology::random(seed)).unwrap_or_default();
        return Ok((name.to_owned(), text));
    }
    let path = Path::new(name);
    if !name.contains('/') && !name.ends_with(".toml") && !path.exists() {
        return Err(unknown(name));
    }
    match read(path) {
        Ok(text) => Ok((name.to_owned(), text)),
        Err(source) => Err(TopologyError::Read { path: path.to_owned(), source }),
    }
}

/// The text of a file, if it is one that a topology can stand in.
fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; name a file"));
    }
    let mut text = String::new();
    if file.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
        let what = format!("it is longer than {MAX_FILE} bytes, which no topology is");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

fn unknown(name: &str) -> TopologyError {
    let presets: Vec<_> = Topology::presets().collect();
    TopologyError::Unknown {
        name: name.into(),
        near: nearest_name(name, presets.iter().copied()),
        presets: presets.join(", "),
    }
}
