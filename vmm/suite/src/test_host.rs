//! The kernel of the nested test host: the lab's where it is in the cache, the distribution's own otherwise.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use peerdma_images::cache::Cache;
use peerdma_images::embedded::{self, TEST_HOST_MODULE};
use peerdma_images::kernel::{self, BuiltKernel, Flavour, KernelRequest};
use peerdma_images::kernel_image::KernelImage;
use peerdma_images::module::{self, ModuleRequest};
use peerdma_images::progress::{Progress, Silent};

use super::prepare::PrepareError;

/// Names another kernel for the nested test host.
const KERNEL_VARIABLE: &str = "PEERDMA_TEST_HOST_KERNEL";
/// What runs guests there, where the kernel has it as a module. QEMU emulates AMD's virtualization only.
const MODULES: &[&str] = &["kvm-amd"];

/// What the nested test host boots.
#[derive(Debug, Clone)]
pub struct TestHostKernel {
    /// The kernel, open.
    pub image: Arc<KernelImage>,
    /// A word for it: the name of a kernel of ours, or the path of the user's.
    pub name: String,
    /// Modules of the kernel's own that it loads first, in this order.
    pub modules: Vec<PathBuf>,
    /// The module that works around the emulator, `images/test-host`. None for a kernel that the user names, which
    /// comes without a build tree.
    pub workaround: Option<PathBuf>,
    /// Whether it may change its own code while it runs (jump labels, static calls). Ours is configured not to.
    pub patches_itself: bool,
}

/// The kernel of the nested test host, and its modules.
///
/// # Errors
/// When it is not there and cannot be built or fetched.
pub fn kernel(progress: &dyn Progress) -> Result<TestHostKernel, PrepareError> {
    match named() {
        Some(path) => at(path),
        None => ours(super::auto::flavour(progress)?, progress),
    }
}

/// The test host's kernel, if nothing has to be built or fetched for it; without the module that works around the emulator.
///
/// # Errors
/// When the one that the user names is not there, or the cache cannot be read.
pub fn in_cache() -> Result<Option<TestHostKernel>, PrepareError> {
    if let Some(path) = named() {
        return at(path).map(Some);
    }
    let cache = Cache::open()?;
    for flavour in [Flavour::Lab, Flavour::Stock] {
        let request = KernelRequest::from_environment(flavour);
        if let Some(built) = kernel::find(&cache, &request, &Silent)? {
            return of(&built, None).map(Some);
        }
    }
    Ok(None)
}

fn named() -> Option<PathBuf> {
    env::var_os(KERNEL_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The user's own.
fn at(path: PathBuf) -> Result<TestHostKernel, PrepareError> {
    if !path.is_file() {
        return Err(PrepareError::NoFile { what: "the test host's kernel", path });
    }
    Ok(TestHostKernel {
        image: Arc::new(KernelImage::open(&path)?),
        name: path.display().to_string(),
        modules: Vec::new(),
        workaround: None,
        patches_itself: true,
    })
}

fn ours(flavour: Flavour, progress: &dyn Progress) -> Result<TestHostKernel, PrepareError> {
    let built = kernel::build(&KernelRequest::from_environment(flavour), progress)?;
    let cache = Cache::open()?;
    let source = embedded::unpack(&cache, "test-host", TEST_HOST_MODULE, progress)?;
    let request = ModuleRequest { source, tree: built.build_tree(), strict: true };
    let workaround = module::build(&cache, &request, progress)?.files.into_iter().next();
    of(&built, workaround)
}

fn of(built: &BuiltKernel, workaround: Option<PathBuf>) -> Result<TestHostKernel, PrepareError> {
    Ok(TestHostKernel {
        image: Arc::new(KernelImage::open(&built.image())?),
        name: built.flavour.name().to_owned(),
        modules: built.modules_in_order(MODULES)?,
        workaround,
        patches_itself: built.flavour == Flavour::Stock,
    })
}
