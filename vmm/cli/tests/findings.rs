//! What the program says about findings, from outside. No guest is run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::process::Stdio;

use program::{peerdma, run};

#[test]
fn classes_are_listed_and_explained_and_pipes_get_plain_text() {
    let (code, all, err) = run(&["findings"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(all.lines().any(|line| line.starts_with("witness.stale ")), "{all}");
    let (code, page, _) = run(&["findings", "witness.stale"]);
    assert_eq!(code, 0);
    for part in [
        "witness.stale (finding)\n",
        "unmapped 1.8 ms earlier",
        "\nCause: use",
        "\nFix:   un",
        "\nModes: lazy",
    ] {
        assert!(page.contains(part), "{part:?}: {page}");
    }
    assert!(!page.contains('\x1b') && !page.contains('`'), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    let (code, group, _) = run(&["findings", "witness"]);
    assert_eq!((code, group.lines().count()), (0, 5), "{group}");
    // A reader that has seen enough is not an error.
    let mut child = peerdma(&["findings"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_class_that_is_not_there_gets_the_nearest_one() {
    let (code, out, err) = run(&["findings", "iommu.stael"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("\"iommu.stael\", did you mean \"iommu.stale\"?"), "{err}");
}
