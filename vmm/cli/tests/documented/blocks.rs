//! The commands of a Markdown page: those in `sh` and `console` blocks, and those between backquotes.

/// A command as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Page and line.
    pub(crate) page: String,
    /// As it stands there.
    pub(crate) text: String,
    /// As a shell takes it apart, without variables in front and redirections behind.
    pub(crate) words: Vec<String>,
    /// The lines of the `text` block that follows its own block, for a block's last command.
    pub(crate) output: Vec<String>,
}

impl Shown {
    pub(crate) fn of(page: &str, text: &str) -> Self {
        let mut words = shlex::split(text).unwrap_or_else(|| panic!("{page}: {text}: open quote"));
        let is_variable = |word: &String| {
            word.split_once('=').is_some_and(|(name, _)| {
                name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            })
        };
        while words.first().is_some_and(is_variable) {
            words.remove(0);
        }
        // Its output goes to a file.
        if let Some(redirection) = words.iter().position(|word| word.starts_with('>')) {
            words.truncate(redirection);
        }
        assert!(!words.is_empty(), "{page}: {text}: not a command");
        Self { page: page.into(), text: text.into(), words, output: Vec::new() }
    }
}

/// All commands of the page, in order.
pub(crate) fn commands(name: &str, page: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut lines = page.lines().enumerate();
    // Whether the last block was one of commands, with nothing but prose of one line behind it.
    let mut follows = false;
    while let Some((index, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            follows &= line.is_empty();
            all.extend(inline(&format!("{name}:{}", index + 1), line));
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        match kind {
            "sh" | "console" => {
                all.extend(block_commands(name, kind, &block));
                follows = true;
            }
            "text" if follows => {
                if let Some(last) = all.last_mut() {
                    last.output = block.iter().map(|(_, line)| (*line).to_owned()).collect();
                }
                follows = false;
            }
            _ => follows = false,
        }
    }
    all
}

fn block_commands(name: &str, kind: &str, block: &[(usize, &str)]) -> Vec<Shown> {
    let mut all = Vec::new();
    let mut lines = block.iter();
    while let Some((index, line)) = lines.next() {
        let line = match (kind, line.strip_prefix("$ ")) {
            ("console", Some(command)) => command,
            // Output.
            ("console", None) => continue,
            _ => line,
        };
        let mut text = line.to_owned();
        while let Some(begun) = text.strip_suffix('\\') {
            let (_, more) = lines.next().unwrap_or(&(0, ""));
            text = format!("{begun}{}", more.trim_start());
        }
        if !text.trim().is_empty() && !text.starts_with('#') {
            all.push(Shown::of(&format!("{name}:{}", index + 1), &text));
        }
    }
    all
}

/// Commands of ours between backquotes. One with `...` or brackets is a pattern.
fn inline(page: &str, line: &str) -> Vec<Shown> {
    let ours = ["peerdma ", "target/peerdma ", "make "];
    let quoted = line.split('`').skip(1).step_by(2);
    let commands = quoted.filter(|text| ours.iter().any(|begin| text.starts_with(begin)));
    let whole = commands.filter(|text| !text.contains(['[', '|']));
    whole.map(|text| Shown::of(page, text)).collect()
}

#[test]
fn commands_are_taken_from_a_page_as_a_reader_does() {
    let page = "Run `make lint`, not `make [x]`.\n\n```sh\n# remark\nA=1 peerdma test \\\n  --file 'a b'\nmake vm\n```\n\n\
                ```text\nout\n```\n\n```console\n$ peerdma doctor\nfine\n```\n\nProse.\n\n```text\nother\n```\n";
    let all = commands("p", page);
    let texts: Vec<_> = all.iter().map(|one| (one.page.as_str(), one.text.as_str())).collect();
    let expected = [
        ("p:1", "make lint"),
        ("p:5", "A=1 peerdma test --file 'a b'"),
        ("p:7", "make vm"),
        ("p:15", "peerdma doctor"),
    ];
    assert_eq!(texts, expected);
    assert_eq!(all[1].words, ["peerdma", "test", "--file", "a b"]);
    assert_eq!(all[2].output, ["out"]);
    assert!(all[3].output.is_empty() && all[1].output.is_empty());
}
