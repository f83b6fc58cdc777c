//! What a guest is made of, ready to be loaded: kernel, our driver built against it, initramfs.

use std::env;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use peerdma_images::cache::{Cache, CacheError};
use peerdma_images::command::CommandError;
use peerdma_images::embedded;
use peerdma_images::initramfs::{Initramfs, InitramfsError};
use peerdma_images::kernel::{self, BuiltKernel, Flavour, KernelError, KernelRequest};
use peerdma_images::kernel_image::{ImageError, KernelImage};
use peerdma_images::kselftest::KselftestError;
use peerdma_images::module::{self, ModuleError, ModuleRequest};
use peerdma_images::progress::{self, Progress};

use super::hello::Module;
use super::own::{KernelModule, Own};
use crate::host::PROGRAM;
use crate::host::ctrl_c::interrupted;

/// Where the guest's kernel finds its first process: this very program.
pub const INIT: &str = "/init";
/// By this name it is the guest's test program.
pub const AGENT: &str = "guest-agent";
/// By this name it makes transfers by hand.
pub const CTL: &str = "peerdmactl";
/// Names a folder with our driver's source, instead of what the program carries.
const DRIVER_VARIABLE: &str = "PEERDMA_DRIVER";
/// What the lab's own devices need of the kernel where it is a module. The IOMMU's comes first: a device whose driver
/// finds none for ten seconds does without.
const FIRST_MODULES: &[&str] = &["virtio_iommu", "virtio_rng"];
/// What a user sees at login.
const PROFILE: &str = "\
export PS1='guest:\\w# '
[ -t 1 ] && cat <<'END'
A guest of peerdma. Begin with:
  peerdmactl list                   the devices, and which may reach which
  peerdmactl transfer peer0 peer1   one P2P transfer, each step as the command that does it
  peerdmactl shell                  the same by hand; misuse --list there makes mistakes on purpose
guest-agent --help tests and fetches your files, lspci -vvv and dmesg look around, Ctrl-A x leaves.
END
";

/// Which kernel a guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChoice {
    /// One of ours, built when it is not in the cache.
    Flavour(Flavour),
    /// The user's: vmlinux, bzImage or built tree.
    Path(PathBuf),
}

impl KernelChoice {
    /// As on the command line: a flavour's name, or a path.
    pub fn parse(text: &str) -> Self {
        Flavour::ALL
            .into_iter()
            .find(|flavour| flavour.name() == text)
            .map_or_else(|| Self::Path(text.into()), Self::Flavour)
    }

    /// By how much time limits are stretched: a kernel that checks itself is slow.
    pub fn time_factor(&self) -> u64 {
        match self {
            Self::Flavour(flavour) => flavour.time_factor(),
            // What a user's kernel has switched on is not known.
            Self::Path(_) => 5,
        }
    }
}

/// A guest cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The kernel cannot be built.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The user's kernel is not a kernel image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The driver cannot be built.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The user's module cannot be built.
    #[error(transparent)]
    OwnModule(ModuleError),
    /// The user's module is not a module.
    #[error("the module {} cannot be used: {why}", path.display())]
    NotAModule {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The user's file cannot be put into the guest.
    #[error(transparent)]
    OwnFile(InitramfsError),
    /// The initramfs cannot be packed.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The kernel's own test programs.
    #[error(transparent)]
    Kselftest(#[from] KselftestError),
    /// The list of tests that are known to fail.
    #[error("vmm/suite/known-failures.toml: {0}")]
    KnownFailures(#[from] toml::de::Error),
    /// A file that the user names.
    #[error("{what} {} is not there; check the path", path.display())]
    NoFile {
        /// What it should be.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// A folder that the user names where a file is wanted.
    #[error("{what} {} is a folder; name each file of it, or pack them into an archive", path.display())]
    NotAFile {
        /// What it should be.
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// A module that the guest's kernel does not have.
    #[error(
        "this kernel has no module {name:?}{}; what is built in needs no --modprobe",
        near.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
    )]
    NoKernelModule {
        /// Its name.
        name: String,
        /// The name that was probably meant.
        near: Option<String>,
    },
    /// Modules of the kernel's, and it is not known where they are.
    #[error(
        "{kernel}: no build tree is known for this kernel, so its modules cannot be loaded; give the tree itself with --kernel"
    )]
    NoKernelModules {
        /// What the kernel is called.
        kernel: String,
    },
    /// A module's sources, and no kernel to build them against.
    #[error("{}: no build tree is known for this kernel; give the tree itself with --kernel, or the module built", path.display())]
    NoTree {
        /// The sources.
        path: PathBuf,
    },
    /// The folder that should have our driver's source.
    #[error("{DRIVER_VARIABLE} names {}, which holds no Kbuild", path.display())]
    NoDriver {
        /// The folder.
        path: PathBuf,
    },
}

impl PrepareError {
    /// Whether something that the user named is not what it should be; otherwise this machine lacks something.
    pub fn is_of_the_user(&self) -> bool {
        match self {
            Self::Image(_) | Self::NoFile { .. } | Self::NotAFile { .. } | Self::NoTree { .. } => {
                true
            }
            Self::NotAModule { .. } | Self::Module(ModuleError::NotATree { .. }) => true,
            Self::NoKernelModule { .. } | Self::NoKernelModules { .. } | Self::NoDriver { .. } => {
                true
            }
            Self::OwnModule(error) => match error {
                ModuleError::Command(error) => matches!(error, CommandError::Failed { .. }),
                ModuleError::Cache(_) | ModuleError::Io { .. } => false,
                ModuleError::Warnings { .. }
                | ModuleError::NotASource { .. }
                | ModuleError::NothingBuilt { .. }
                | ModuleError::NotATree { .. } => true,
            },
            Self::OwnFile(error) => !matches!(
                error,
                InitramfsError::Missing { .. }
                    | InitramfsError::Command(_)
                    | InitramfsError::Cache(_)
            ),
            _ => false,
        }
    }
}

/// Where a debugger finds a guest's symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// Of the kernel.
    pub vmlinux: PathBuf,
    /// The folders with the modules that the guest loads, each once.
    pub modules: Vec<PathBuf>,
    /// The folders with their sources.
    pub sources: Vec<PathBuf>,
}

/// A guest, ready to be loaded.
#[derive(Debug)]
pub struct Prepared {
    /// The kernel, an ELF file. The path is good as long as this lives.
    pub kernel: PathBuf,
    /// What to call it.
    pub kernel_name: String,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The witness, which the guest may load before all of them; none where it is not wanted or cannot be had.
    pub witness: Option<Module>,
    /// What the guest loads first.
    pub modules: Vec<Module>,
    /// What goes on the kernel's command line for modules that it has built in.
    pub parameters: Vec<String>,
    /// For a debugger; none where there is nothing of the kind.
    pub symbols: Option<Symbols>,
    /// What the user should know: for example why our driver is not there.
    pub notes: Vec<String>,
    /// The initramfs before it was packed, for scenarios whose guests carry more.
    pub(super) base: Initramfs,
    /// The kernel's build tree, when there is one.
    pub(super) tree: Option<PathBuf>,
    /// Keeps the kernel's path good.
    _image: Option<KernelImage>,
}

/// Puts a kernel that the lab knows by name into the cache, unless it is there: what takes the longest of [`prepare`].
///
/// # Errors
/// When it cannot be built or fetched, or something else that the user names is not there.
pub fn fetch(
    kernel: &KernelChoice,
    own: &Own,
    progress: &dyn Progress,
) -> Result<(), PrepareError> {
    own.check()?;
    if let KernelChoice::Flavour(flavour) = kernel {
        kernel::build(&KernelRequest::from_environment(*flavour), progress)?;
    }
    Ok(())
}

/// Puts a guest together; builds what is not in the cache. `with_witness`: the module, too, that tells what the kernel
/// maps; a kernel that cannot have it gets none, which is noted.
///
/// # Errors
/// When a part is missing and cannot be made.
pub fn prepare(
    kernel: &KernelChoice,
    own: &Own,
    with_witness: bool,
    progress: &dyn Progress,
) -> Result<Prepared, PrepareError> {
    own.check()?;
    let cache = Cache::open()?;
    let mut notes = Vec::new();
    let Found { elf, name: kernel_name, tree, image, built } = find_kernel(kernel, progress)?;
    let (kernel_modules, parameters) = match &tree {
        _ if own.kernel_modules.is_empty() => (Vec::new(), Vec::new()),
        Some(tree) => (
            KernelModule::files(&own.kernel_modules, tree)?,
            KernelModule::command_line(&own.kernel_modules, tree),
        ),
        None => return Err(PrepareError::NoKernelModules { kernel: kernel_name }),
    };
    let mut sources: Vec<PathBuf> =
        own.modules.iter().filter(|path| path.is_dir()).cloned().collect();
    let modules = own.built_modules(&cache, tree.as_deref(), progress)?;
    let strict = matches!(kernel, KernelChoice::Flavour(_));
    let driver = match &tree {
        _ if !own.wants_driver() => Vec::new(),
        Some(tree) => {
            let (source, tree) = (driver_source(&cache, progress)?, tree.clone());
            sources.push(source.clone());
            module::build(&cache, &ModuleRequest { source, tree, strict }, progress)?.files
        }
        None => {
            notes.push(format!(
                "{kernel_name}: no build tree is known for this kernel, so the lab's driver cannot be built for it and its \
                 tests are skipped; give the tree itself with --kernel"
            ));
            Vec::new()
        }
    };
    let witness = match &tree {
        Some(tree) if with_witness => match witness(&cache, tree, strict, progress)? {
            Ok(file) => Some(file),
            Err(why) => {
                notes.push(format!("{kernel_name}: mappings are not watched: {why}"));
                None
            }
        },
        _ => None,
    };
    let mut initramfs = Initramfs::new();
    initramfs.program(INIT, Path::new(PROGRAM))?;
    initramfs.symlink(&format!("/bin/{AGENT}"), INIT)?;
    initramfs.symlink(&format!("/bin/{CTL}"), INIT)?;
    initramfs.busybox(progress)?;
    initramfs.pciutils()?;
    initramfs.file("/etc/profile", 0o644, PROFILE)?;
    let mut first = Vec::new();
    if let Some(built) = &built {
        // Where programs look for it; the agent, too.
        initramfs.host_file(&format!("/boot/config-{}", built.release), &built.config())?;
        first = built.modules_in_order(FIRST_MODULES)?;
    }
    own.pack(&mut initramfs)?;
    let mut loaded = Vec::new();
    // What the lab loads first anyway is loaded once, with the parameters that were asked for.
    let asked_for = |file: &PathBuf| {
        let asked = kernel_modules.iter().find(|(own, _)| own == file);
        asked.map(|(_, parameters)| parameters.clone()).unwrap_or_default()
    };
    let early: Vec<_> = first.iter().map(|file| (file.clone(), asked_for(file))).collect();
    let asked = kernel_modules.into_iter().filter(|(file, _)| !first.contains(file));
    let own = driver.into_iter().chain(modules).map(|file| (file, String::new()));
    let mut folders: Vec<PathBuf> = Vec::new();
    for (file, parameters) in early.into_iter().chain(asked).chain(own) {
        initramfs.module(&file)?;
        folders.extend(file.parent().map(Path::to_owned));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        loaded.push(Module { path: format!("/lib/modules/{name}"), parameters });
    }
    let witness = match witness {
        Some(file) => {
            initramfs.module(&file)?;
            folders.extend(file.parent().map(Path::to_owned));
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            Some(Module { path: format!("/lib/modules/{name}"), parameters: String::new() })
        }
        None => None,
    };
    folders.sort();
    folders.dedup();
    let vmlinux = built.as_ref().map(BuiltKernel::vmlinux).filter(|path| path.exists());
    let symbols = vmlinux.map(|vmlinux| Symbols { vmlinux, modules: folders, sources });
    Ok(Prepared {
        kernel: elf,
        kernel_name,
        initramfs: initramfs.store(&cache)?,
        witness,
        modules: loaded,
        parameters,
        symbols,
        notes,
        base: initramfs,
        tree,
        _image: image,
    })
}

/// A kernel that was found.
#[derive(Debug)]
struct Found {
    /// Its ELF file.
    elf: PathBuf,
    /// What to call it.
    name: String,
    /// What modules are built against.
    tree: Option<PathBuf>,
    /// Keeps the file open.
    image: Option<KernelImage>,
    /// What else is known of a kernel that the lab knows by name.
    built: Option<BuiltKernel>,
}

fn find_kernel(choice: &KernelChoice, progress: &dyn Progress) -> Result<Found, PrepareError> {
    match choice {
        KernelChoice::Flavour(flavour) => {
            let built = kernel::build(&KernelRequest::from_environment(*flavour), progress)?;
            let name = format!("{flavour} {} ({})", built.release, built.source);
            let tree = Some(built.build_tree());
            if *flavour != Flavour::Stock {
                let elf = built.image();
                return Ok(Found { elf, name, tree, image: None, built: Some(built) });
            }
            // A bzImage, as it was in the distribution's package.
            let image = KernelImage::open(&built.image())?;
            Ok(Found { elf: opened(&image), name, tree, image: Some(image), built: Some(built) })
        }
        KernelChoice::Path(path) => {
            if !path.exists() {
                return Err(PrepareError::NoFile { what: "the kernel", path: path.clone() });
            }
            let image = KernelImage::open(path)?;
            let release = image.release.clone().unwrap_or_else(|| "of unknown release".into());
            let name = format!("{} {release} ({})", image.kind, path.display());
            let tree = image.build_tree.clone().or_else(|| headers(image.release.as_deref()?));
            Ok(Found { elf: opened(&image), name, tree, image: Some(image), built: None })
        }
    }
}

/// The path of a kernel that is open: the payload of a bzImage has no name of its own.
fn opened(image: &KernelImage) -> PathBuf {
    Path::new("/proc/self/fd").join(image.elf.as_raw_fd().to_string())
}

/// The headers of a distribution's kernel, where its packages put them.
fn headers(release: &str) -> Option<PathBuf> {
    let folder = Path::new("/lib/modules").join(release).join("build");
    (!release.contains('/') && folder.join("Module.symvers").is_file()).then_some(folder)
}

/// The folder with our driver's source.
fn driver_source(cache: &Cache, progress: &dyn Progress) -> Result<PathBuf, PrepareError> {
    let named = env::var_os(DRIVER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    match named {
        Some(path) if path.join("Kbuild").is_file() => Ok(path),
        Some(path) => Err(PrepareError::NoDriver { path }),
        None => {
            let files = peerdma_driver_source::driver();
            Ok(embedded::unpack(cache, "guest-driver", &files, progress)?)
        }
    }
}

/// The witness's module, built against `tree`; or why a kernel that is not ours cannot have it.
fn witness(
    cache: &Cache,
    tree: &Path,
    strict: bool,
    progress: &dyn Progress,
) -> Result<Result<PathBuf, String>, PrepareError> {
    let files = peerdma_driver_source::witness();
    let source = embedded::unpack(cache, "dma-witness", &files, progress)?;
    let request = ModuleRequest { source, tree: tree.to_owned(), strict };
    match module::build(cache, &request, progress) {
        Ok(built) => Ok(built.files.into_iter().next().ok_or_else(|| "nothing was built".into())),
        Err(ModuleError::Command(error @ CommandError::Failed { .. })) if !strict => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Progress on stderr that ends when the user wants it to, and that is silent while nothing takes long.
#[derive(Debug)]
pub struct Quiet(Box<dyn Progress>);

impl Quiet {
    /// On stderr.
    pub fn for_stderr() -> Self {
        Self(progress::for_stderr())
    }

    /// Nothing follows: takes the progress line away.
    pub fn done(self) {
        drop(self.0);
    }
}

impl Progress for Quiet {
    fn phase(&self, title: &str, total: Option<u64>) {
        self.0.phase(title, total);
    }

    fn advance(&self, done: u64) {
        self.0.advance(done);
    }

    fn note(&self, line: &str) {
        self.0.note(line);
    }

    fn cancelled(&self) -> bool {
        interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_s_name_is_not_a_path() {
        assert_eq!(KernelChoice::parse("lab"), KernelChoice::Flavour(Flavour::Lab));
        assert_eq!(KernelChoice::parse("debug"), KernelChoice::Flavour(Flavour::Debug));
        assert_eq!(KernelChoice::parse("./lab"), KernelChoice::Path("./lab".into()));
    }

    #[test]
    fn what_the_user_names_must_be_there() {
        let nothing = KernelChoice::Path("/no/such/kernel".into());
        let own = Own { modules: vec!["/no/such.ko".into()], ..Own::default() };
        let error = prepare(&nothing, &own, true, &progress::Silent).unwrap_err().to_string();
        assert_eq!(error, "the module /no/such.ko is not there; check the path");
        let error = find_kernel(&nothing, &progress::Silent).unwrap_err().to_string();
        assert_eq!(error, "the kernel /no/such/kernel is not there; check the path");
        assert!(matches!(
            find_kernel(&KernelChoice::Path("/bin/sh".into()), &progress::Silent),
            Err(PrepareError::Image(_))
        ));
    }
}
