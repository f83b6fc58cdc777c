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
    // What can be a note too is said to be.
    assert!(all.lines().any(|line| line.contains("  finding or note  ")), "{all}");
    let (code, json, _) = run(&["findings", "witness", "--json"]);
    let pages: Vec<std::collections::BTreeMap<String, String>> =
        serde_json::from_str(&json).unwrap();
    assert_eq!((code, pages.len()), (0, 5), "{json}");
    for field in ["class", "severity", "meaning", "example", "cause", "fix", "modes"] {
        assert!(pages.iter().all(|page| !page[field].is_empty()), "{field}: {json}");
    }
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

/// Nothing is prepared or booted before all of this is known.
#[test]
fn wrong_options_about_findings_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let reasonless = file("a", "# known\n\niommu.stale peer0\n");
    let unknown = file("b", "iommu.stael # why\n");
    let scenario = file("c.toml", "command = ['true']\nsuppress = ['iommu.stale']\n");
    let place = folder.path().join("no/f.jsonl");
    let place = place.to_str().unwrap();
    for (line, code, part) in [
        (&["--suppress", &reasonless][..], 2, "a:3: the reason is missing"),
        (&["--suppress", &unknown], 2, "b:1: there is no finding class \"iommu.stael\""),
        (&["--suppress", "/no/such"], 2, "suppression file /no/such: "),
        (&["--stop-on", "iommu.stael"], 2, "did you mean iommu.stale?"),
        (&["--rebind", "virtio_rng"], 2, "did you mean \"virtio-rng\"?"),
        (&["--rebind", "virtio-iommu"], 2, "cannot do without its IOMMU"),
        (&["--findings", place], 3, "--findings "),
        (&["--findings", "/"], 3, "--findings /: "),
    ] {
        for command in ["test", "boot"] {
            let (status, out, err) = run(&[&[command][..], line, &["--host", "nested"]].concat());
            assert_eq!((status, out.as_str()), (code, ""), "{command} {line:?}: {err}");
            assert!(err.contains(part), "{command} {line:?}: {err}");
        }
    }
    let (code, _, err) = run(&["boot", "--findings", "-"]);
    assert!(code == 2 && err.contains("stdout is the guest's console"), "{err}");
    let (code, _, err) = run(&["test", "--json", "--findings", "-"]);
    assert!(code == 2 && err.contains("both want stdout"), "{err}");
    let (code, _, err) = run(&["test", "--scenario", &scenario]);
    assert!(code == 2 && err.contains("suppress entry 1: the reason is missing"), "{err}");
}
