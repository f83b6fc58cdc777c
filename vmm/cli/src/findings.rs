//! `peerdma findings`: the classes of findings, and a page about each.

mod pages;

use std::io::{self, IsTerminal};

use clap::Args;
use peerdma_suite::host::terminal;
use peerdma_support::names::nearest_name;

use super::{Exit, Failure, output};
use pages::Page;

/// Columns of a page where the terminal does not say how many it has, and at most.
const WIDTH: usize = 100;

/// Which classes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  peerdma findings                   all classes, a line each
  peerdma findings witness           those that begin with this
  peerdma findings --json witness    for programs
  peerdma findings iommu.stale       what it means, how it looks, its usual cause, how to fix it

docs/findings.md has the same pages.")]
pub(super) struct Arguments {
    /// A class as a finding has it, or its beginning [default: all]
    #[arg(value_name = "CLASS|PREFIX")]
    name: Option<String>,
    /// Print them as JSON, with all of each page
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let pages = pages::all();
    let is_styled = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let heading = |text: &str| match is_styled {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let columns = terminal::size(io::stdout()).map_or(WIDTH, |(_, columns)| usize::from(columns));
    let found = find(&pages, arguments.name.as_deref().unwrap_or_default())?;
    if arguments.json {
        let all = match found {
            Found::Page(page) => vec![page],
            Found::List(pages) => pages,
        };
        output::json(&all.into_iter().map(Page::json).collect::<Vec<_>>())?;
        return Ok(Exit::Success as u8);
    }
    let text = match found {
        Found::Page(page) => page.text(columns.clamp(40, WIDTH), heading),
        Found::List(pages) => list(&pages, heading),
    };
    output::print(&text)?;
    Ok(Exit::Success as u8)
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    /// One class.
    Page(&'a Page),
    /// All that begin like this.
    List(Vec<&'a Page>),
}

fn find<'a>(pages: &'a [Page], name: &str) -> Result<Found<'a>, Failure> {
    let name = name.trim().to_lowercase();
    if let Some(page) = pages.iter().find(|page| page.name == name) {
        return Ok(Found::Page(page));
    }
    let listed: Vec<_> = pages.iter().filter(|page| page.name.starts_with(&name)).collect();
    if !listed.is_empty() {
        return Ok(Found::List(listed));
    }
    // The second half alone is what one remembers of a line: `stale` is in two groups.
    let ends = |page: &&Page| page.name.split_once('.').is_some_and(|(_, end)| end == name);
    let listed: Vec<_> = pages.iter().filter(ends).collect();
    match listed.as_slice() {
        [page] => return Ok(Found::Page(page)),
        [] => {}
        _ => return Ok(Found::List(listed)),
    }
    let near = nearest_name(&name, pages.iter().map(|page| page.name.as_str()));
    let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
    Err(Failure::usage(format_args!("there is no class of findings {name:?}{near}"))
        .hint("`peerdma findings` lists them all"))
}

fn list(pages: &[&Page], heading: impl Fn(&str) -> String) -> String {
    let width = pages.iter().map(|page| page.name.len()).max().unwrap_or(0);
    let line = |page: &&Page| {
        let severity = page.field("Severity").split(" (").next().unwrap_or_default();
        let space = " ".repeat(width - page.name.len());
        format!("{}{space}  {severity:15}  {}\n", heading(&page.name), page.summary())
    };
    pages.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: Found<'_>) -> Vec<String> {
        match found {
            Found::Page(page) => vec![format!("page of {}", page.name)],
            Found::List(pages) => pages.iter().map(|page| page.name.clone()).collect(),
        }
    }

    #[test]
    fn a_name_is_a_class_or_begins_some_or_gets_a_hint() {
        let pages = pages::all();
        let found = |name: &str| names(find(&pages, name).unwrap());
        assert_eq!(found("").len(), pages.len());
        assert_eq!(found("iommu.stale"), ["page of iommu.stale"]);
        assert_eq!(found(" IOMMU.Stale "), ["page of iommu.stale"]);
        assert_eq!(found("buffer.fr"), ["buffer.freed"]);
        assert_eq!(found("msi"), ["msi.not-a-vector", "msi.malformed"]);
        assert_eq!(found("stale"), ["iommu.stale", "witness.stale"]);
        assert_eq!(found("past-end"), ["page of witness.past-end"]);
        for (name, near) in [("witness.stal", None), ("witnes.stale", Some("witness.stale"))] {
            let result = find(&pages, name);
            match near {
                None => assert_eq!(names(result.unwrap()), ["witness.stale"]),
                Some(near) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.exit, Exit::Usage);
                    assert!(error.to_string().contains(&format!("mean {near:?}?")), "{error}");
                }
            }
        }
        let error = find(&pages, "xyzzy").unwrap_err().to_string();
        assert!(!error.contains("mean") && error.contains("lists them all"), "{error}");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let pages = pages::all();
        let text = list(&pages.iter().collect::<Vec<_>>(), str::to_owned);
        assert_eq!(text.lines().count(), pages.len());
        assert!(
            text.contains("\niommu.mapping-edge             note             The data of one"),
            "{text}"
        );
    }
}
