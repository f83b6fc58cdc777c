//! `misuse`: mistakes on purpose.

use crate::error::CtlError;
use crate::output::Answer;
use crate::session::Session;
use guest_agent::cases::Announced;
use guest_agent::cases::provoke::{Misuse, all};
use serde_json::json;

pub(super) fn list() -> Answer {
    let all = all();
    let width = all.iter().map(|misuse| misuse.name().len()).max().unwrap_or(0);
    let lines: Vec<_> =
        all.iter().map(|misuse| format!("{:width$}  {}", misuse.name(), misuse.about)).collect();
    let json: Vec<_> =
        all.iter().map(|misuse| json!({ "name": misuse.name(), "about": misuse.about })).collect();
    Answer::new(lines.join("\n"), json!({ "misuses": json }))
}

/// The one that `name` names, or begins.
fn find(name: &str) -> Result<Misuse, CtlError> {
    let all = all();
    if let Some(exact) = all.iter().find(|misuse| misuse.name() == name) {
        return Ok(*exact);
    }
    let begun: Vec<_> = all.iter().filter(|misuse| misuse.name().starts_with(name)).collect();
    match begun.as_slice() {
        [one] => Ok(**one),
        [] => Err(CtlError::usage(format!("{name:?} is not a mistake that this program makes"))
            .hint("`misuse --list` shows all of them")),
        several => {
            let names: Vec<_> = several.iter().map(|misuse| misuse.name()).collect();
            Err(CtlError::usage(format!("{name:?} begins several names"))
                .hint(format!("it is one of: {}", names.join(", "))))
        }
    }
}

pub(super) fn make(session: &mut Session, name: &str) -> Result<Answer, CtlError> {
    let misuse = find(name)?;
    // It opens the devices itself. A driver is not unbound from one that is open.
    if misuse.unbinds() {
        session.close_devices()?;
    }
    let made = misuse.make(session.need_vmm()?)?;
    let classes: Vec<_> = made.announced.iter().map(words).collect();
    let text = format!(
        "{}: {}\n  must be found: {}\n  the VMM has counted {} findings since; they are on the host's terminal, and \
         `peerdma findings {}` there explains the class",
        misuse.name(),
        misuse.about,
        classes.join(", or "),
        made.found,
        made.announced.first().map_or("CLASS", |announced| announced.class.as_str())
    );
    let json = json!({
        "misuse": misuse.name(),
        "expected": made.announced.iter().map(|one| json!({
            "class": one.class,
            "min": one.min,
            "max": one.max,
        })).collect::<Vec<_>>(),
        "found": made.found,
    });
    if made.found == 0 {
        return Err(CtlError::refused(format!("{text}\n  nothing was found")));
    }
    Ok(Answer::new(text, json))
}

fn words(announced: &Announced) -> String {
    let Announced { class, min, max } = announced;
    match (min, max) {
        (0, _) => class.clone(),
        (min, Some(max)) if min == max => format!("{class}, {min} times"),
        (min, Some(max)) => format!("{class}, {min} to {max} times"),
        (min, None) => format!("{class}, {min} times or more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_found_by_its_beginning() {
        assert_eq!(find("stale.use").unwrap().name(), "stale.use-after-unmap");
        assert_eq!(find("pci.bar-edge").unwrap().name(), "pci.bar-edge");
        assert!(find("stale").unwrap_err().to_string().contains("stale.dma-buf-unmapped"));
        assert!(find("dance").unwrap_err().to_string().contains("--list"));
        assert!(list().text.lines().count() > 20);
    }

    #[test]
    fn numbers_of_findings_have_words() {
        let of = |min, max| words(&Announced { class: "c".into(), min, max });
        assert_eq!(of(1, Some(1)), "c, 1 times");
        assert_eq!(of(1, None), "c, 1 times or more");
        assert_eq!(of(0, None), "c");
    }
}
