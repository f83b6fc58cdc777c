//! The pages about classes of findings: the sections of docs/findings.md, which the program carries.

use std::fmt::Write;

/// The document. The link makes it part of the package.
const DOCUMENT: &str = include_str!("../../findings.txt");

/// How a page begins, and how its fields and its example do.
const HEADING: &str = "\n### ";
const FENCE: &str = "```";
const FIELD: &str = "- ";

/// The fields of each page, in their order.
const FIELDS: [&str; 4] = ["Severity", "Cause", "Fix", "Modes"];

/// What the document says about a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// The class.
    pub(super) name: String,
    /// What it means: paragraphs, each on one line.
    pub(super) meaning: Vec<String>,
    /// A line as the checker prints it.
    pub(super) example: String,
    /// Name and text of each field.
    pub(super) fields: Vec<(String, String)>,
}

impl Page {
    /// Reads a section; its heading is the first line.
    fn of(section: &str) -> Self {
        let mut lines = section.lines();
        let name = lines.next().unwrap_or_default().trim().to_owned();
        let mut page =
            Self { name, meaning: Vec::new(), example: String::new(), fields: Vec::new() };
        let (mut fenced, mut paragraph) = (false, false);
        for line in lines {
            if line.starts_with(FENCE) {
                fenced = !fenced;
                paragraph = false;
            } else if fenced {
                page.example.push_str(line);
            } else if line.is_empty() {
                paragraph = false;
            } else if let Some(field) = line.strip_prefix(FIELD) {
                let (name, text) = field.split_once(": ").unwrap_or((field, ""));
                page.fields.push((name.to_owned(), plain(text)));
                paragraph = true;
            } else {
                let text = plain(line.trim());
                let last = match page.fields.last_mut() {
                    Some((_, text)) => Some(text),
                    None => page.meaning.last_mut(),
                };
                match last.filter(|_| paragraph) {
                    Some(last) => {
                        last.push(' ');
                        last.push_str(&text);
                    }
                    None => page.meaning.push(text),
                }
                paragraph = true;
            }
        }
        page
    }

    /// The text of a field; empty if the page lacks it.
    pub(super) fn field(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(known, _)| known == name);
        field.map_or("", |(_, text)| text)
    }

    /// The first sentence: what a list has room for.
    pub(super) fn summary(&self) -> &str {
        let text = self.meaning.first().map_or("", String::as_str);
        text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
    }

    /// All of it, for programs.
    pub(super) fn json(&self) -> serde_json::Value {
        let fields = self.fields.iter().map(|(name, text)| (name.to_lowercase(), text.as_str()));
        let own = [("class".to_owned(), self.name.as_str()), ("example".to_owned(), &self.example)];
        let all = own.into_iter().chain(fields).map(|(name, text)| (name, text.into()));
        let mut all: serde_json::Map<_, _> = all.collect();
        all.insert("meaning".to_owned(), self.meaning.join("\n\n").into());
        all.into()
    }

    /// The page for a terminal of this width; `heading` makes what a heading is.
    pub(super) fn text(&self, width: usize, heading: impl Fn(&str) -> String) -> String {
        let mut text = format!("{} ({})\n\n", heading(&self.name), self.field("Severity"));
        for paragraph in &self.meaning {
            wrap(&mut text, paragraph, "", "", width);
            text.push('\n');
        }
        wrap(&mut text, &self.example, "  ", "  ", width);
        text.push('\n');
        let shown = FIELDS.iter().filter(|name| **name != "Severity");
        let indent = " ".repeat(shown.clone().map(|name| name.len() + 2).max().unwrap_or(0));
        for name in shown {
            let first = format!("{:width$}", format!("{name}:"), width = indent.len());
            let at = text.len();
            wrap(&mut text, self.field(name), &first, &indent, width);
            text.replace_range(at..at + name.len(), &heading(name));
        }
        text
    }
}

/// All pages, in the order of the document.
pub(super) fn all() -> Vec<Page> {
    let mut sections = DOCUMENT.split(HEADING);
    // What comes before the first page; what follows a page up to the next chapter is not part of it.
    sections.next();
    sections.map(|section| Page::of(section.split("\n## ").next().unwrap_or(section))).collect()
}

/// Markdown without its marks: of a link its text, of code the code.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        rest = match link.split_once("](") {
            Some((label, target)) => {
                plain.push_str(label);
                target.split_once(')').map_or("", |(_, after)| after)
            }
            None => {
                plain.push('[');
                link
            }
        };
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

/// Adds `words` to `text` in lines of at most `width` characters, as far as the words allow.
fn wrap(text: &mut String, words: &str, first: &str, next: &str, width: usize) {
    let (mut line, mut is_empty) = (first.to_owned(), true);
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            // Into a string: cannot fail.
            let _ = writeln!(text, "{line}");
            line = next.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use device_models::checker::FindingClass;

    use super::*;

    #[test]
    fn each_class_has_a_page_and_each_page_a_class() {
        let pages = all();
        let names: BTreeSet<_> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names, FindingClass::ALL.iter().map(|class| class.name()).collect());
        assert_eq!(names.len(), pages.len(), "a page stands there twice");
    }

    #[test]
    fn no_page_lacks_anything() {
        for page in all() {
            let name = &page.name;
            assert!(!page.meaning.is_empty(), "{name}");
            let fields: Vec<_> = page.fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(fields, FIELDS, "{name}");
            assert!(page.fields.iter().all(|(_, text)| !text.is_empty()), "{name}");
            let severity = page.field("Severity");
            assert!(["finding", "note", "finding or note"].contains(&severity), "{name}");
            // A line of the checker's own, see `Finding`.
            let (head, sentence) = page.example.split_once(&format!(": {name}: ")).unwrap();
            assert!(!sentence.is_empty(), "{name}");
            assert!(!head.starts_with('#') || head.contains(" addr=0x"), "{name}");
            let known = ["strict", "lazy", "passthrough", "none"];
            let modes = page.field("Modes").replace(',', " ");
            assert!(modes.split_whitespace().any(|word| known.contains(&word)), "{name}");
            assert!(page.summary().len() <= 90, "{name}: {}", page.summary());
        }
    }

    #[test]
    fn a_page_is_read_as_it_stands() {
        let page = Page::of(
            "a.b\n\nOne [two](x.md#y) `three`.\nFour.\n\nFive.\n\n```text\na: a.b: c\n```\n\n- Severity: note\n\
             - Cause: six\n  seven\n- Fix: a [b\n- Modes: none\n",
        );
        assert_eq!((page.name.as_str(), page.summary()), ("a.b", "One two three"));
        assert_eq!(page.meaning, ["One two three. Four.", "Five."]);
        assert_eq!((page.example.as_str(), page.field("Cause")), ("a: a.b: c", "six seven"));
        assert_eq!((page.field("Fix"), page.field("Other")), ("a [b", ""));
        let text = page.text(20, |heading| heading.to_uppercase());
        assert_eq!(
            text,
            "A.B (note)\n\nOne two three. Four.\n\nFive.\n\n  a: a.b: c\n\nCAUSE: six seven\n\
             FIX:   a [b\nMODES: none\n"
        );
    }

    #[test]
    fn lines_are_broken_between_words() {
        let mut text = String::new();
        wrap(&mut text, "aaa bbb cccccccccccc d", "> ", "  ", 9);
        assert_eq!(text, "> aaa bbb\n  cccccccccccc\n  d\n");
    }
}
