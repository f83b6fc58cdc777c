#![doc = include_str!("README.md")]
//! [`FILES`] has every file; the licence's text travels among them.

/// Every source file: its path below the driver's folder, with `/` between the parts, and its content. Sorted by path.
/// Holds what Kbuild needs (C, headers, `Kbuild`) and `COPYING`.
pub const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Where the sources of the witness, a module of its own, lie among [`FILES`].
const WITNESS: &str = "witness/";

/// The driver's own of [`FILES`].
pub fn driver() -> Vec<(&'static str, &'static str)> {
    FILES.iter().filter(|(path, _)| !path.starts_with(WITNESS)).copied().collect()
}

/// Those of [`FILES`] that `dma_witness.ko` is built from, which tells the VMM what the kernel maps for DMA; their paths
/// below its own folder, and the licence.
pub fn witness() -> Vec<(&'static str, &'static str)> {
    let own = FILES.iter().filter_map(|(path, text)| Some((path.strip_prefix(WITNESS)?, *text)));
    own.chain(FILES.iter().filter(|(path, _)| *path == "COPYING").copied()).collect()
}

/// The content of the file at `path` in [`FILES`].
#[must_use]
pub fn file(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, content)| *content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_kbuild_has_its_source() {
        let kbuild = file("Kbuild").unwrap();
        let objects = kbuild
            .lines()
            .filter(|line| line.starts_with("peerdma-y") || line.starts_with("peerdma_dma-y"))
            .flat_map(|line| line.split_whitespace().filter_map(|word| word.strip_suffix(".o")));
        let mut count = 0;
        for object in objects {
            assert!(file(&format!("{object}.c")).is_some(), "{object}.c is not embedded");
            count += 1;
        }
        assert!(count > 5, "Kbuild names {count} objects: is it read right?");
    }

    #[test]
    fn the_witness_is_a_module_of_its_own() {
        let witness = witness();
        let text =
            |name: &str| witness.iter().find(|(path, _)| *path == name).map(|(_, text)| *text);
        let kbuild = text("Kbuild").unwrap();
        assert!(text("COPYING").is_some());
        let lines = kbuild.lines().filter(|line| line.starts_with("dma_witness-y"));
        let objects: Vec<_> = lines
            .flat_map(|line| line.split_whitespace().filter_map(|word| word.strip_suffix(".o")))
            .collect();
        for object in &objects {
            assert!(text(&format!("{object}.c")).is_some(), "{object}.c is not embedded");
        }
        let sources = witness.iter().filter(|(path, _)| path.ends_with(".c")).count();
        assert_eq!(objects.len(), sources, "Kbuild names each source once");
        assert!(driver().iter().all(|(path, _)| !path.starts_with("witness")));
        assert_eq!(driver().len() + witness.len(), FILES.len() + 1);
    }

    #[test]
    fn every_header_that_a_source_includes_is_there() {
        for (path, content) in FILES {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let included = content.lines().filter_map(|line| {
                line.strip_prefix("#include \"")?.split_once('"').map(|(name, _)| name)
            });
            for name in included {
                let beside =
                    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") };
                let places = [beside, name.into(), format!("include/{name}")];
                let found = places.iter().any(|place| file(&normal(place)).is_some());
                assert!(found, "{path} includes {name}, which is not embedded");
            }
        }
    }

    /// `a/../b` is `b`.
    fn normal(path: &str) -> String {
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }

    #[test]
    fn each_source_names_its_licence_and_the_text_comes_along() {
        for (path, content) in FILES.iter().filter(|(path, _)| *path != "COPYING") {
            let first = content.lines().next().unwrap_or_default();
            assert!(first.contains("SPDX-License-Identifier: GPL-2.0-only"), "{path}: {first}");
        }
        assert!(file("COPYING").unwrap().contains("GNU GENERAL PUBLIC LICENSE"));
    }

    #[test]
    fn the_agent_s_folder_and_what_a_build_left_are_not_embedded() {
        for (path, _) in FILES {
            assert!(!path.starts_with("agent/") && !path.starts_with("protocol/"), "{path}");
            assert!(!path.ends_with(".mod.c") && !path.ends_with(".rs"), "{path}");
        }
    }
}
