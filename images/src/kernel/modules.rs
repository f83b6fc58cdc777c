//! The modules that belong to a kernel, and the order in which they must be loaded.

use std::fs;
use std::path::{Path, PathBuf};

use peerdma_support::names::nearest_name;

use super::{BuiltKernel, KernelError};

/// Modules need modules that need modules, this often at most: a loop among them is an error in the kernel's files.
const DEPTH_LIMIT: usize = 32;

impl BuiltKernel {
    /// A module that belongs to the kernel, by its name (`vfio-pci` or `vfio_pci`).
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        module(&self.build_tree(), name)
    }

    /// See [`modules_in_order`].
    ///
    /// # Errors
    /// When a module's file cannot be read.
    pub fn modules_in_order(&self, names: &[&str]) -> Result<Vec<PathBuf>, KernelError> {
        modules_in_order(&self.build_tree(), names)
    }
}

/// A module of the kernel that was built in `tree`, by its name.
fn module(tree: &Path, name: &str) -> Option<PathBuf> {
    let order = fs::read_to_string(tree.join("modules.order")).ok()?;
    let path = order.lines().find(|line| {
        let file = line.rsplit('/').next().and_then(|file| file.strip_suffix(".o"));
        file.is_some_and(|file| plain(file) == plain(name))
    })?;
    Some(tree.join(path).with_extension("ko")).filter(|path| path.is_file())
}

/// The files of these modules of the kernel that was built in `tree`, and of all that they need, each once and after
/// what it needs. A name that is not a module of this kernel's is left out: the kernel has it built in, or not at all.
///
/// # Errors
/// When a module's file cannot be read.
pub fn modules_in_order(tree: &Path, names: &[&str]) -> Result<Vec<PathBuf>, KernelError> {
    let mut files = Vec::new();
    names.iter().try_for_each(|name| add_in_order(tree, name, 0, &mut files))?;
    Ok(files)
}

/// What a kernel has under the name of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// A module.
    Module,
    /// The same, built in.
    BuiltIn,
    /// Neither, as far as its build tree shows.
    Missing {
        /// The module whose name is most like it, if any is.
        near: Option<String>,
    },
}

/// What the kernel that was built in `tree` has under `name`.
pub fn availability(tree: &Path, name: &str) -> Availability {
    if module(tree, name).is_some() {
        return Availability::Module;
    }
    let list = |file: &str| fs::read_to_string(tree.join(file)).unwrap_or_default();
    let (built_in, order) = (list("modules.builtin"), list("modules.order"));
    fn stem(line: &str) -> Option<&str> {
        Path::new(line).file_stem()?.to_str()
    }
    if built_in.lines().filter_map(stem).any(|stem| plain(stem) == plain(name)) {
        return Availability::BuiltIn;
    }
    let near = nearest_name(name, order.lines().chain(built_in.lines()).filter_map(stem));
    Availability::Missing { near }
}

fn add_in_order(
    tree: &Path,
    name: &str,
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> Result<(), KernelError> {
    let Some(file) = module(tree, name).filter(|file| !files.contains(file)) else {
        return Ok(());
    };
    if depth < DEPTH_LIMIT {
        for needed in needs(&file)? {
            add_in_order(tree, &needed, depth + 1, files)?;
        }
    }
    // A loop has added it meanwhile.
    if !files.contains(&file) {
        files.push(file);
    }
    Ok(())
}

/// A module's name as the kernel has it: file names may have dashes.
pub fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The parameters of the module `name` among those of a kernel's command line (`NAME.PARAMETER=VALUE`), as modprobe has
/// it: there they count for a module that is built in, too.
pub fn parameters_of<'a>(name: &str, command_line: impl Iterator<Item = &'a str>) -> String {
    let own = plain(name);
    let parameters = command_line.filter_map(|parameter| {
        let (module, parameter) = parameter.split_once('.')?;
        (plain(module) == own).then_some(parameter)
    });
    parameters.collect::<Vec<_>>().join(" ")
}

/// The names of the modules that a module needs, from its `depends=` (include/linux/module.h, MODULE_INFO).
fn needs(file: &Path) -> Result<Vec<String>, KernelError> {
    let content = fs::read(file).map_err(KernelError::io("Reading", file))?;
    Ok(depends(&content))
}

fn depends(content: &[u8]) -> Vec<String> {
    // The fields of `.modinfo` end with a zero byte, and in a section of their own they begin after one.
    let field = content.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Flavour;
    use super::*;

    /// A kernel with these modules and what they need.
    fn kernel(modules: &[(&str, &str)]) -> (tempfile::TempDir, BuiltKernel) {
        let folder = tempfile::tempdir().unwrap();
        let kernel = BuiltKernel {
            flavour: Flavour::Stock,
            release: "r".to_owned(),
            source: "s".to_owned(),
            key: "k".to_owned(),
            folder: folder.path().to_owned(),
            cached: true,
        };
        fs::create_dir_all(kernel.build_tree().join("d")).unwrap();
        let order: String = modules.iter().map(|(name, _)| format!("d/{name}.o\n")).collect();
        fs::write(kernel.build_tree().join("modules.order"), order).unwrap();
        for (name, needs) in modules {
            let content = format!("\x7fELF\0license=GPL\0depends={needs}\0name=x\0");
            fs::write(kernel.build_tree().join(format!("d/{name}.ko")), content).unwrap();
        }
        (folder, kernel)
    }

    fn order(kernel: &BuiltKernel, names: &[&str]) -> Vec<String> {
        let files = kernel.modules_in_order(names).unwrap();
        files.iter().map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let modules = [("vfio-pci", "vfio-pci-core"), ("vfio-pci-core", "vfio"), ("vfio", "")];
        let (_folder, kernel) = kernel(&modules);
        assert_eq!(order(&kernel, &["vfio_pci", "vfio"]), ["vfio", "vfio-pci-core", "vfio-pci"]);
        assert_eq!(order(&kernel, &["built-in"]), [""; 0]);
    }

    #[test]
    fn what_is_there_is_distinguished_from_what_is_built_in_and_from_what_is_not_there() {
        let (_folder, kernel) = kernel(&[("snd-hda-codec", "")]);
        let tree = kernel.build_tree();
        fs::write(tree.join("modules.builtin"), "kernel/drivers/dma/ioat/ioatdma.ko\n").unwrap();
        assert_eq!(availability(&tree, "snd_hda_codec"), Availability::Module);
        assert_eq!(availability(&tree, "ioatdma"), Availability::BuiltIn);
        let near = Some("ioatdma".to_owned());
        assert_eq!(availability(&tree, "iaotdma"), Availability::Missing { near });
        assert_eq!(availability(&tree, "zzz"), Availability::Missing { near: None });
    }

    #[test]
    fn a_loop_ends() {
        let (_folder, kernel) = kernel(&[("a", "b"), ("b", "a")]);
        let mut names = order(&kernel, &["a"]);
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }
}
