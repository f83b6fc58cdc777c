//! Text as people post it: recognised line by line.

mod head;
mod hex;
mod ids;
mod lines;
mod listing;
mod logical;
mod loose;
mod script;
mod tree;
mod values;

use head::Head;
use lines::{Line, Lines};
use listing::Section;
use logical::Statement;

use crate::assemble::assemble;
use crate::gather::Gathered;
use crate::{Error, Machine, system};

/// The longest input that [`read`] takes, in bytes.
pub const MAX_INPUT: usize = 64 << 20;

/// Lines that may continue one that was broken.
const MAX_CONTINUATION: usize = 3;

/// Reads a machine from the content of a file, whatever of the known forms it has.
///
/// # Errors
///
/// The input is too long, names no function, or contradicts itself about which functions there are; JSON that is not a
/// record.
pub fn read(input: &[u8]) -> Result<Machine, Error> {
    if input.len() > MAX_INPUT {
        return Err(Error::TooLong { limit: MAX_INPUT });
    }
    let text = String::from_utf8_lossy(input);
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{') {
        return Machine::from_json(text);
    }
    let mut reader = Reader::default();
    let mut lines = Lines::new(text);
    while let Some(line) = lines.next() {
        reader.line(&line, &lines)?;
    }
    let lines = lines.number();
    reader.close(Some(lines))?;
    if let Some((parameters, line)) = reader.parameters.take() {
        system::command_line(&mut reader.gathered, &parameters, line, false);
    }
    if reader.gathered.functions.is_empty() {
        return Err(Error::NoFunction { lines });
    }
    assemble(reader.gathered)
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reader {
    gathered: Gathered,
    section: Option<Section>,
    /// An address alone: a function only if something about it follows.
    heading: Option<(crate::Address, usize)>,
    tree: tree::Tree,
    /// The part of the script's output.
    part: Option<script::Part>,
    parameters: Option<(String, usize)>,
    /// The IOMMU group that a line before said, for the functions below it.
    group: Option<u32>,
}

impl Reader {
    /// Reads `line`, and those of `rest` that belong to it.
    fn line(&mut self, line: &Line<'_>, rest: &Lines<'_>) -> Result<(), Error> {
        let text = line.trimmed();
        if text.is_empty() {
            if let Some(section) = &mut self.section {
                section.blank();
            }
            self.group = None;
            return Ok(());
        }
        if let Some(part) = script::mark(text, &mut self.gathered) {
            self.part = Some(part);
            return self.close(None);
        }
        if let Some(part) = self.part
            && script::line(part, &mut self.parameters, &mut self.gathered, text, line.number)
        {
            return Ok(());
        }
        if head::is_mutilated(text) && head::read(text).is_none() {
            // What follows belongs to it, and to no function that was named before.
            let text = "a function whose address cannot be read";
            self.gathered.notes.add(text, None, Some(line.number));
            return self.close(None);
        }
        if loose::sysfs(&mut self.gathered, text, line.number)? {
            return Ok(());
        }
        if loose::control(&mut self.gathered, text, line.number)? {
            self.gathered.sources.insert("setpci");
            return self.close(None);
        }
        if let Some((group, after)) = loose::group(text) {
            self.group = Some(group);
            return match head::read(after) {
                Some(head) => self.head(&head, line, rest),
                None => Ok(()),
            };
        }
        if tree::is_tree(text) {
            self.close(None)?;
            return self.tree.line(&mut self.gathered, &line.text, line.number);
        }
        if let Some(head) = head::read(text) {
            return self.head(&head, line, rest);
        }
        if let Some((offset, bytes)) = hex::row(text) {
            if let Some(section) = self.section() {
                section.row(offset, &bytes, line.number);
                self.gathered.sources.insert("hex dump");
            }
            return Ok(());
        }
        if system::line(&mut self.gathered, text, line.number) {
            return Ok(());
        }
        if logical::begins(text) {
            let statement = join(line, rest);
            return self.statement(&statement);
        }
        if !is_gap(text) {
            // Something else: a list of groups has ended.
            self.group = None;
        } else if let Some(section) = &mut self.section {
            section.gap(line.number);
        }
        Ok(())
    }

    fn head(&mut self, head: &Head<'_>, line: &Line<'_>, rest: &Lines<'_>) -> Result<(), Error> {
        self.close(None)?;
        let statement = join(line, rest);
        if let Some(group) = self.group {
            self.gathered.function(head.address, line.number)?.iommu_group.put(group, line.number);
        }
        let whole = |joined: &str| head::read(joined).and_then(|head| head.listing);
        let mut listing = head.listing.clone();
        for joined in [&statement.spaced, &statement.tight] {
            // What follows may be prose: it is taken only if the first line may be broken, and for what that lacks.
            if may_be_broken(&line.text)
                && listing.as_ref().is_none_or(|ids| ids.device.is_none() || ids.by_name)
                && let Some(more) = whole(joined)
                && more.device.is_some()
                && !more.by_name
            {
                listing = Some(more);
            }
        }
        if let Some(above) = head.above {
            let draft = self.gathered.function(head.address, line.number)?;
            draft.parent.put(crate::Parent::Below(above), line.number);
        }
        self.heading = Some((head.address, line.number));
        if let Some(ids) = listing {
            let section = Section::new(head.address, line.number);
            self.gathered.sources.insert("lspci");
            section.ids(&mut self.gathered, &ids)?;
            self.section = Some(section);
        } else if !head.rest.is_empty() {
            let statement = Statement::new(line.number, head.rest);
            if logical::begins(&statement.first) {
                return self.statement(&statement);
            }
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), Error> {
        /// What only a function has: it makes one of an address alone, which may be anything.
        const OWN: [&str; 7] = [
            "ACSC",
            "Bus: ",
            "Express ",
            "Capabilities: ",
            "Region ",
            "IOMMU group: ",
            "Kernel driver",
        ];
        let is_own = OWN.iter().any(|start| statement.first.starts_with(start));
        let known = if is_own { self.section().is_some() } else { self.section.is_some() };
        if !known && statement.first.starts_with("ACSC") {
            let text = "an ACS line without a function above it";
            self.gathered.notes.add(text, None, Some(statement.number));
            return Ok(());
        }
        if let Some(section) = &mut self.section
            && section.statement(&mut self.gathered, statement)?
        {
            return Ok(());
        }
        Ok(())
    }

    /// The function that is being read; an address alone becomes one, because something about it follows.
    fn section(&mut self) -> Option<&mut Section> {
        if let (None, Some((address, line))) = (&self.section, self.heading) {
            self.section = Some(Section::new(address, line));
        }
        self.section.as_mut()
    }

    /// Ends the function that is being read; with `last`, the number of lines, the text, too.
    fn close(&mut self, last: Option<usize>) -> Result<(), Error> {
        self.heading = None;
        match self.section.take() {
            Some(section) => section.close(&mut self.gathered, last),
            None => Ok(()),
        }
    }
}

/// `line` with those that may continue it. They stay in `rest`: what was no continuation may be something of its own.
fn join(line: &Line<'_>, rest: &Lines<'_>) -> Statement {
    let mut statement = Statement::new(line.number, &line.text);
    for next in rest.clone().take(MAX_CONTINUATION) {
        let text = next.trimmed();
        let other = tree::is_tree(text) || hex::row(text).is_some();
        let head = head::read(text).is_some() || head::is_mutilated(text);
        if text.is_empty() || logical::begins(text) || is_gap(text) || other || head {
            break;
        }
        statement.join(&next.text);
    }
    statement
}

/// Whether the first line of a function may go on in the next one: it is long, and ends within a name.
fn may_be_broken(line: &str) -> bool {
    /// The shortest width that lines are broken at.
    const WIDTH: usize = 50;
    line.len() >= WIDTH && !line.ends_with([')', ']'])
}

/// Whether a line stands for others that were left out.
fn is_gap(text: &str) -> bool {
    let dots = text.contains("..") || text.contains('…');
    if text == "--" || dots && text.chars().all(|c| ".…[]()<>*# -".contains(c)) {
        return true;
    }
    let words = ["snip", "truncated", "omitted", "left out", "--more--", "removed"];
    let lower = text.to_ascii_lowercase();
    text.len() < 60 && words.iter().any(|word| lower.contains(word))
}
