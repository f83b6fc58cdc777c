//! Lists the driver's sources for the library. They are found by pattern: a new file has to be
//! named in Kbuild only.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let mut files = Vec::new();
    collect(&root, "", &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for name in &files {
        let path = root.join(name);
        // Cargo watches what is listed. A new source is noticed by the Kbuild or the file that names it.
        println!("cargo::rerun-if-changed={}", path.display());
        list += &format!("    ({name:?}, include_str!({path:?})),\n");
    }
    list += "]\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), list)?;
    println!("cargo::rerun-if-changed=embed/build.rs");
    Ok(())
}

/// Adds the names of the sources in the folder `below` the root and in those under it, but for other packages.
fn collect(root: &Path, below: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{below}{name}");
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if !entry.path().join("Cargo.toml").exists() {
                collect(root, &format!("{path}/"), files)?;
            }
        } else if is_source(&name) {
            files.push(path);
        }
    }
    Ok(())
}

/// As the build of a module sees it, and the licence.
fn is_source(name: &str) -> bool {
    let language = [".c", ".h", ".S", ".lds"].iter().any(|ending| name.ends_with(ending));
    !name.ends_with(".mod.c") && language
        || ["Kbuild", "Makefile", "Kconfig", "COPYING"].contains(&name)
}
