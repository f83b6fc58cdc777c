//! `lspci -t`, `-tv` and `-tnn`: the tree, in columns.

use super::head::{last_pair, pair};
use super::ids::by_name;
use crate::gather::{Gathered, name};
use crate::{Address, Error, Parent, Root};

/// What a branch of the drawing stands for.
#[derive(Debug, Clone, Copy)]
enum Branch {
    /// The machine, with its root buses.
    Machine,
    /// A bridge with several buses below it.
    Bridge(Address),
    /// A bus: its segment and number, and what is above it.
    Bus(u32, u8, Parent),
}

/// The branches that later lines may go on with, by their columns.
#[derive(Debug, Default)]
pub(super) struct Tree {
    open: Vec<(usize, Branch)>,
}

/// Whether `text`, without indentation, is a line of a tree.
pub(super) fn is_tree(text: &str) -> bool {
    let text = text.trim_start_matches([' ', '|']);
    let after = |start: &str| text.strip_prefix(start).is_some_and(is_element);
    after("-") || after("-+-") || after("+-") || after("\\-")
}

/// `[0000:3a]-`, `[3a]-`, `01.0`.
fn is_element(text: &str) -> bool {
    bus(text).is_some() || device(text).is_some()
}

/// Segment, if there is one, and number of a root bus, and the rest behind `]`.
fn bus(text: &str) -> Option<(Option<u32>, u8, &str)> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    let hex = |word: &str, long: std::ops::RangeInclusive<usize>| {
        let digits = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        (digits && long.contains(&word.len())).then(|| u32::from_str_radix(word, 16).ok()).flatten()
    };
    let (segment, number) = match inner.split_once(':') {
        Some((segment, number)) => (Some(hex(segment, 4..=8)?), number),
        None => (None, inner),
    };
    Some((segment, u8::try_from(hex(number, 2..=2)?).ok()?, rest))
}

/// Secondary and subordinate bus of a bridge: `[3b]`, `[3b-3e]`, and the rest.
fn range(text: &str) -> Option<(u8, u8, &str)> {
    let (inner, rest) = text.strip_prefix("-[")?.split_once(']')?;
    let (first, last) = inner.split_once('-').unwrap_or((inner, inner));
    let hex = |word: &str| {
        let digits = word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(word, 16).ok()).flatten()
    };
    Some((hex(first)?, hex(last)?, rest))
}

/// Device and function: `1f.3`, and the rest.
fn device(text: &str) -> Option<(u8, u8, &str)> {
    let word = text.get(..4)?;
    let rest = &text[4..];
    if !(rest.is_empty() || rest.starts_with([' ', '-'])) {
        return None;
    }
    let address: Address = format!("00:{word}").parse().ok()?;
    Some((address.device, address.function, rest))
}

impl Tree {
    /// Reads a line with its indentation.
    pub(super) fn line(
        &mut self,
        gathered: &mut Gathered,
        text: &str,
        line: usize,
    ) -> Result<(), Error> {
        gathered.sources.insert("lspci -t");
        let start = text.find(|c| !" |".contains(c)).unwrap_or(0);
        let body = &text[start..];
        if body.starts_with('-') {
            // The first line of a tree.
            self.open.clear();
            self.open.push((start + 1, Branch::Machine));
            let body = body.strip_prefix("-+-").or(body.strip_prefix('-')).unwrap_or(body);
            return self.element(gathered, text, body, Branch::Machine, line);
        }
        while self.open.last().is_some_and(|(column, _)| *column > start) {
            self.open.pop();
        }
        match self.open.last() {
            Some((column, branch)) if *column == start => {
                let branch = *branch;
                self.element(gathered, text, &body[2..], branch, line)
            }
            _ => {
                let text = "a line of the tree hangs on nothing: what is before it is missing, or its columns are lost";
                gathered.notes.add(text, None, Some(line));
                Ok(())
            }
        }
    }

    /// `body`, a part of `text`, hangs on `branch`.
    fn element(
        &mut self,
        gathered: &mut Gathered,
        text: &str,
        body: &str,
        branch: Branch,
        line: usize,
    ) -> Result<(), Error> {
        let (mut body, mut branch) = (body, branch);
        loop {
            if let Some((segment, number, rest)) = bus(body) {
                let (segment, parent) = match branch {
                    Branch::Bridge(above) => (above.segment, Parent::Below(above)),
                    Branch::Machine => (segment.unwrap_or(0), Parent::Root),
                    Branch::Bus(..) => return Ok(()),
                };
                if parent == Parent::Root {
                    gathered.roots.insert(Root { segment, bus: number });
                }
                branch = Branch::Bus(segment, number, parent);
                body = rest.strip_prefix('-').unwrap_or(rest);
            } else if let Some((device, function, rest)) = device(body) {
                let Branch::Bus(segment, bus, parent) = branch else { return Ok(()) };
                let address = Address { segment, bus, device, function };
                let draft = gathered.function(address, line)?;
                draft.parent.put(parent, line);
                let Some((secondary, subordinate, rest)) = range(rest) else {
                    return self.named(gathered, address, rest, line);
                };
                draft.below.put((secondary, subordinate), line);
                let rest = rest.strip_prefix("--").unwrap_or(rest);
                if rest.starts_with("+-[") || rest.starts_with("\\-[") {
                    branch = Branch::Bridge(address);
                } else {
                    branch = Branch::Bus(segment, secondary, Parent::Below(address));
                }
                body = rest;
            } else {
                return Ok(());
            }
            // What hangs on it: one with dashes, several from a plus on.
            if body.starts_with("+-") || body.starts_with("\\-") {
                self.open.push((text.len() - body.len(), branch));
                body = &body[2..];
            } else if let Some(rest) = body.strip_prefix("--") {
                body = rest;
            } else {
                return Ok(());
            }
        }
    }

    fn named(
        &self,
        gathered: &mut Gathered,
        address: Address,
        rest: &str,
        line: usize,
    ) -> Result<(), Error> {
        let rest = rest.trim();
        let draft = gathered.function(address, line)?;
        let numbers = last_pair(rest).or_else(|| pair(rest.split(' ').next()?));
        let (vendor, device) = match numbers {
            Some((vendor, device)) => (Some(vendor), Some(device)),
            None => by_name(rest),
        };
        if let Some(vendor) = vendor {
            draft.vendor.put(vendor, line);
        }
        if let Some(device) = device {
            draft.device.put(device, line);
        }
        if !rest.is_empty() {
            draft.description.get_or_insert_with(|| name(rest));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
-+-[0000:80]-+-00.0  Intel Corporation Device 09a2
 |           \\-02.0-[81-83]--+-00.0-[82]----00.0  NVIDIA Corporation GA100 [10de:20b5]
 |                           \\-01.0-[83]--
 \\-[0000:00]-+-00.0
             +-1c.0-[01-02]--+-[0000:02]---00.0
             |               \\-[0000:01]-+-00.0
             |                           \\-00.1
             \\-1f.0
";

    fn read(text: &str) -> (Gathered, String) {
        let (mut gathered, mut tree) = (Gathered::default(), Tree::default());
        for (index, line) in text.lines().enumerate() {
            assert!(is_tree(line.trim()), "{line}");
            tree.line(&mut gathered, line, index + 1).unwrap();
        }
        let notes = gathered.notes.0.keys().cloned().collect();
        (gathered, notes)
    }

    fn parents(gathered: &Gathered) -> Vec<String> {
        let of = |(address, draft): (&Address, &crate::gather::Draft)| match draft.parent.get() {
            Some(Parent::Below(above)) => format!("{address} < {above}"),
            other => format!("{address} {other:?}"),
        };
        gathered.functions.iter().map(of).collect()
    }

    #[test]
    fn a_tree_says_what_is_above_what() {
        let (gathered, notes) = read(TREE);
        assert_eq!(notes, "");
        assert_eq!(
            parents(&gathered),
            [
                "0000:00:00.0 Some(Root)",
                "0000:00:1c.0 Some(Root)",
                "0000:00:1f.0 Some(Root)",
                "0000:01:00.0 < 0000:00:1c.0",
                "0000:01:00.1 < 0000:00:1c.0",
                "0000:02:00.0 < 0000:00:1c.0",
                "0000:80:00.0 Some(Root)",
                "0000:80:02.0 Some(Root)",
                "0000:81:00.0 < 0000:80:02.0",
                "0000:81:01.0 < 0000:80:02.0",
                "0000:82:00.0 < 0000:81:00.0",
            ]
        );
        let of = |address: &str| &gathered.functions[&address.parse().unwrap()];
        assert_eq!(of("81:01.0").below.get(), Some(&(0x83, 0x83)));
        assert_eq!(of("82:00.0").device.get(), Some(&0x20b5));
        assert_eq!(of("80:00.0").device.get(), Some(&0x09a2));
        assert_eq!(gathered.roots.len(), 2);
    }

    #[test]
    fn an_indented_tree_is_the_same_and_a_cut_one_says_so() {
        let indented: String = TREE.lines().map(|line| format!("    {line}\n")).collect();
        assert_eq!(parents(&read(&indented).0), parents(&read(TREE).0));
        let headless: String = TREE.lines().skip(1).map(|line| format!("{line}\n")).collect();
        let (gathered, notes) = read(&headless);
        assert!(gathered.functions.is_empty());
        assert!(notes.contains("hangs on nothing"), "{notes}");
        let flat: String =
            TREE.lines().map(|line| format!("{}\n", line.replace("  ", ""))).collect();
        assert!(read(&flat).1.contains("hangs on nothing"));
    }

    #[test]
    fn other_text_is_no_tree() {
        for text in
            ["", "-", "- a list", "+-", "--------", "-[x]-", "+-1c.9", "\\-é0.0", "|", "+-00.0x"]
        {
            assert!(!is_tree(text), "{text}");
        }
        assert!(is_tree("-[00]-+-00.0"));
    }
}
