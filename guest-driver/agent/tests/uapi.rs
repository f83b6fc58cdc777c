//! The Rust view of the driver's user interface against the C header itself.
//!
//! A small C program, made from our tables and compiled with the system's compiler, prints what the header says.

use guest_agent::uapi;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

fn include() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../include/uapi")
}

/// One `NAME VALUE` line for everything we claim, and the C program that prints the same lines from the header.
fn claims() -> (String, String) {
    let mut ours = String::new();
    let mut program = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"peerdma.h\"\n#include \"peerdma_dma.h\"\n\
         #define SIZE(s, f) sizeof(((struct s *)0)->f)\nint main(void)\n{\n",
    );
    let mut claim = |name: &str, value: u64, c_value: &str| {
        let _ = writeln!(ours, "{name} {value}");
        let _ = writeln!(
            program,
            "\tprintf(\"%s %llu\\n\", \"{name}\", (unsigned long long)({c_value}));"
        );
    };
    for layout in uapi::layouts() {
        let name = layout.c_name;
        claim(name, layout.size as u64, &format!("sizeof(struct {name})"));
        for field in &layout.fields {
            let path = format!("{name}.{}", field.name);
            claim(
                &format!("{path}.offset"),
                field.offset as u64,
                &format!("offsetof(struct {name}, {})", field.name),
            );
            claim(
                &format!("{path}.size"),
                field.size as u64,
                &format!("SIZE({name}, {})", field.name),
            );
        }
    }
    for (name, value) in uapi::constants() {
        claim(name, u64::from(value), &format!("PEERDMA_{name}"));
    }
    for (name, value) in uapi::calls() {
        claim(name, u64::from(value), &format!("PEERDMA_{name}"));
    }
    program.push_str("\treturn 0;\n}\n");
    (ours, program)
}

#[test]
fn layouts_numbers_and_constants_are_the_headers() {
    let (ours, program) = claims();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("drift.c");
    let binary = directory.path().join("drift");
    std::fs::write(&source, program).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = match Command::new(&compiler)
        .arg("-I")
        .arg(include())
        .arg("-o")
        .arg(&binary)
        .arg(&source)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let line =
                format!("SKIP {name}: {compiler} does not run ({error}); install gcc or set CC\n");
            // Not captured by libtest; `make test` counts it.
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        }
    };
    assert!(
        compiled.status.success(),
        "the header and our tables differ:\n{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let printed = Command::new(&binary).output().unwrap();
    let theirs = String::from_utf8(printed.stdout).unwrap();
    let differences: Vec<_> =
        ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(differences.is_empty(), "(ours, the header's): {differences:#?}");
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

/// What the compiler cannot see: something new in a header that Rust knows nothing of.
#[test]
fn nothing_in_the_headers_is_missing_here() {
    let files = std::fs::read_dir(include()).unwrap().map(|file| file.unwrap().path());
    let header: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let known: BTreeSet<String> = uapi::constants()
        .into_iter()
        .map(|(name, _)| name)
        .chain(uapi::calls().into_iter().map(|(name, _)| name))
        .map(|name| format!("PEERDMA_{name}"))
        .collect();
    let defined: BTreeSet<String> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|name| name.starts_with("PEERDMA_") && !name.contains('('))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = defined.difference(&known).collect();
    assert!(missing.is_empty(), "a header defines {missing:?}, the agent's uapi module does not");

    let structures: BTreeSet<&str> =
        uapi::layouts().into_iter().map(|layout| layout.c_name).collect();
    let declared =
        header.lines().filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    let missing: Vec<_> = declared.filter(|name| !structures.contains(name)).collect();
    assert!(missing.is_empty(), "a header declares {missing:?}, the agent's uapi module does not");
}

/// The device's codes, read from the generated header as text: it is made for the kernel and does not compile here.
#[test]
fn the_devices_codes_are_the_register_headers() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../peerdma_regs.h");
    let header = std::fs::read_to_string(path).unwrap();
    let theirs: BTreeSet<(String, u32)> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define PEERDMA_"))
        .filter(|rest| {
            ["STATUS_", "HALT_", "FAULT_", "CH_FAULT", "CHANNEL_"]
                .iter()
                .any(|ours| rest.starts_with(ours))
                && !rest.contains('(')
        })
        .filter_map(|rest| {
            let mut words = rest.split_whitespace();
            let name = words.next()?.to_owned();
            Some((name, u32::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?))
        })
        .collect();
    let ours: BTreeSet<(String, u32)> =
        uapi::codes().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(ours, theirs);
}
