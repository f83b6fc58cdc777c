//! Lines as posts carry them, without quotation marks, fences and escapes.

use std::borrow::Cow;

/// The longest line that is looked at, in bytes. The rest of a longer one is skipped.
const MAX_LINE: usize = 8192;

/// A line, cleaned.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    /// From 1 on.
    pub(super) number: usize,
    /// With its indentation, which matters in trees.
    pub(super) text: Cow<'a, str>,
}

impl Line<'_> {
    /// Without indentation.
    pub(super) fn trimmed(&self) -> &str {
        self.text.trim()
    }
}

/// The lines of a text. Cheap to clone, to look ahead.
#[derive(Debug, Clone)]
pub(super) struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, number: 0 }
    }

    /// How many were read.
    pub(super) fn number(&self) -> usize {
        self.number
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.number += 1;
        Some(Line { number: self.number, text: clean(line) })
    }
}

fn clean(line: &str) -> Cow<'_, str> {
    let mut end = line.len().min(MAX_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let line = unquote(line[..end].trim_end());
    let odd = |c: char| !c.is_ascii() || c == '\x1b' || c == '\t' || c == '&' || c == '\0';
    if !line.contains(odd) && !line.contains("=3D") {
        return Cow::Borrowed(line);
    }
    let mut text = line.to_owned();
    if text.contains('&') {
        for (entity, meaning) in
            [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&nbsp;", " "), ("&amp;", "&")]
        {
            text = text.replace(entity, meaning);
        }
        text = unquote(&text).to_owned();
    }
    // Quoted-printable. lspci writes numbers with small letters, so this is none of them.
    if text.contains("=3D") {
        text = text.replace("=3D", "=");
    }
    if text.contains('\x1b') {
        text = without_escapes(&text);
    }
    Cow::Owned(expand(&text))
}

/// Without the quotation marks of mails and posts, and without a fence around code.
fn unquote(line: &str) -> &str {
    let mut line = line;
    while let Some(rest) = line.trim_start().strip_prefix('>') {
        line = rest.strip_prefix(' ').unwrap_or(rest);
    }
    let line = without_number(without_tags(line));
    if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
        ""
    } else {
        line
    }
}

/// Without what a forum puts around code.
fn without_tags(line: &str) -> &str {
    const BEGIN: [&str; 5] = ["<pre>", "<code>", "<pre><code>", "[code]", "[CODE]"];
    const END: [&str; 5] = ["</code></pre>", "</pre>", "</code>", "[/code]", "[/CODE]"];
    let line = BEGIN.iter().find_map(|tag| line.strip_prefix(tag)).unwrap_or(line);
    END.iter().find_map(|tag| line.strip_suffix(tag)).unwrap_or(line)
}

/// Without the number that `cat -n` and `nl` put before a line, with a tab behind it.
fn without_number(line: &str) -> &str {
    match line.split_once('\t') {
        Some((number, rest)) if is_number(number.trim_start_matches(' ')) => rest,
        _ => line,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Tabs become spaces, and so do the spaces that HTML brings and what is no text.
fn expand(line: &str) -> String {
    let mut text = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c {
            '\t' => {
                text.push(' ');
                while !text.len().is_multiple_of(8) {
                    text.push(' ');
                }
            }
            '\u{200b}' | '\u{feff}' | '\0' => {}
            c if c.is_whitespace() => text.push(' '),
            c => text.push(c),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Without what colours a terminal.
fn without_escapes(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            text.push(c);
        } else if chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
            chars.next();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> Vec<String> {
        Lines::new(text).map(|line| line.text.into_owned()).collect()
    }

    #[test]
    fn quotation_and_line_ends_are_taken_off() {
        assert_eq!(cleaned("> > 00:00.0 Host\r\n>\tBus: x\n"), ["00:00.0 Host", "        Bus: x"]);
        assert_eq!(cleaned("&gt; a &lt;access denied&gt;"), ["a <access denied>"]);
        assert_eq!(cleaned("Bus: primary=3D00, secondary=3d"), ["Bus: primary=00, secondary=3d"]);
        assert_eq!(cleaned("```text\n a\u{a0}b\n~~~\n"), ["", " a b", ""]);
        assert_eq!(cleaned("\x1b[1;31mACSCtl:\x1b[0m x"), ["ACSCtl: x"]);
        assert_eq!(cleaned("[code]00:00.0 x[/code]\n<pre>a\nb</pre>"), ["00:00.0 x", "a", "b"]);
        assert_eq!(cleaned("    12\t00:00.0 x\n    13\t\tBus: x"), ["00:00.0 x", "        Bus: x"]);
        assert_eq!(cleaned("  +-00.0\n >TAbort"), ["  +-00.0", "TAbort"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = format!("a{}\nb", "é".repeat(MAX_LINE));
        let lines = cleaned(&text);
        assert_eq!(lines[1], "b");
        assert!(lines[0].len() <= MAX_LINE && lines[0].ends_with('é'));
    }
}
