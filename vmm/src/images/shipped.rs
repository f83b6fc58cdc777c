//! Modules that come with a kernel: found in its build tree, with all that they depend on.
//!
//! Nothing is installed (`make modules_install` and depmod never run): the order of loading comes from what each
//! module says about itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

/// Why the modules of a kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShippedError {
    /// A module's file.
    #[error("reading the module {} failed: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A module's file is damaged.
    #[error("the module {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Modules of a kernel, as far as it has them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// Their files, in the order in which they must be loaded.
    pub files: Vec<PathBuf>,
    /// Names that are no module of this kernel: built in, or left out.
    pub absent: Vec<String>,
}

/// The module of this name (`vfio-pci` or `vfio_pci`) in a build tree, if the kernel was built with it as a module.
pub fn find(tree: &Path, name: &str) -> Option<PathBuf> {
    let order = fs::read_to_string(tree.join("modules.order")).ok()?;
    let line = order.lines().find(|line| {
        let file = line.rsplit('/').next().and_then(|file| file.strip_suffix(".o"));
        file.is_some_and(|file| plain(file) == plain(name))
    })?;
    Some(tree.join(line).with_extension("ko")).filter(|path| path.is_file())
}

/// The modules of these names and all that they depend on.
///
/// # Errors
/// When a module's file cannot be read or understood.
pub fn resolve<'a>(
    tree: &Path,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Shipped, ShippedError> {
    let mut shipped = Shipped::default();
    for name in names {
        if find(tree, name).is_none() {
            shipped.absent.push(name.to_owned());
        }
        add(tree, name, &mut Vec::new(), &mut shipped.files)?;
    }
    Ok(shipped)
}

/// Adds a module behind those that it depends on. `above` are the modules that ask for it: a loop ends there.
fn add(
    tree: &Path,
    name: &str,
    above: &mut Vec<String>,
    files: &mut Vec<PathBuf>,
) -> Result<(), ShippedError> {
    // A dependency that is no module is part of the kernel.
    let Some(path) = find(tree, name) else { return Ok(()) };
    let name = plain(name);
    if files.contains(&path) || above.contains(&name) {
        return Ok(());
    }
    above.push(name);
    for dependency in dependencies(&path)? {
        add(tree, &dependency, above, files)?;
    }
    above.pop();
    files.push(path);
    Ok(())
}

/// The names of the modules that this one depends on, as modpost wrote them into it.
fn dependencies(path: &Path) -> Result<Vec<String>, ShippedError> {
    let content =
        fs::read(path).map_err(|source| ShippedError::Read { path: path.to_owned(), source })?;
    let damaged = |why: String| ShippedError::Damaged { path: path.to_owned(), why };
    let elf: ElfFile64<'_> =
        ElfFile64::parse(content.as_slice()).map_err(|error| damaged(error.to_string()))?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| damaged("it has no section .modinfo".to_owned()))?;
    let info = section.data().map_err(|error| damaged(error.to_string()))?;
    let depends = info
        .split(|&byte| byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="));
    Ok(depends
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

/// A module's name as the kernel has it: file names may have dashes.
pub fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::cache::Cache;
    use crate::images::kernel::{self, Flavour};
    use crate::images::skip;

    fn names(files: &[PathBuf]) -> Vec<String> {
        files
            .iter()
            .map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn what_a_module_depends_on_comes_first() {
        let built = Cache::open().map(|cache| kernel::list(&cache)).unwrap_or_default();
        let Some(kernel) = built.iter().find(|kernel| kernel.flavour == Flavour::Lab) else {
            return skip("no kernel in the cache (`peerdma kernel build`)");
        };
        let tree = kernel.build_tree();
        let shipped = resolve(&tree, ["vfio_pci", "iommufd", "no-such-module"]).unwrap();
        assert_eq!(shipped.absent, ["no-such-module"]);
        let order = names(&shipped.files);
        let place = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(place("iommufd") < place("vfio"), "{order:?}");
        assert!(place("vfio") < place("vfio-pci-core"), "{order:?}");
        assert!(place("vfio-pci-core") < place("vfio-pci"), "{order:?}");
        assert_eq!(order.iter().filter(|name| *name == "iommufd").count(), 1);
    }

    #[test]
    fn a_file_that_is_no_module_is_told() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("modules.order"), "drivers/x/a-b.o\n").unwrap();
        assert_eq!(find(tree.path(), "a_b"), None);
        fs::create_dir_all(tree.path().join("drivers/x")).unwrap();
        fs::write(tree.path().join("drivers/x/a-b.ko"), "text").unwrap();
        assert!(find(tree.path(), "a_b").is_some() && find(tree.path(), "b").is_none());
        let error = resolve(tree.path(), ["a_b"]).unwrap_err().to_string();
        assert!(error.contains("a-b.ko is damaged"), "{error}");
    }
}
