//! Loading kernel modules.

use crate::exit::{self, Failure};
use crate::vmm::Module;
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;

/// Loads one module.
///
/// # Errors
/// With the kernel's reason and where to look for more.
pub(crate) fn load(module: &Module) -> Result<(), Failure> {
    let failure = |reason: String| {
        Failure::new(exit::MODULE, format!("loading {} failed: {reason}", module.path))
    };
    let file = File::open(&module.path).map_err(|error| failure(error.to_string()))?;
    let parameters = CString::new(module.parameters.as_str())
        .map_err(|_| failure("its parameters hold a zero byte".into()))?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        Ok(()) => Ok(()),
        Err(error) => {
            let hint = match error {
                Errno::EXIST => " (a module of that name is loaded, or built in, already)",
                Errno::NOEXEC => " (built for another kernel or configuration?)",
                Errno::NOENT => {
                    " (it needs a symbol that this kernel does not export or a module not yet loaded)"
                }
                Errno::NOSYS => " (this kernel is built without CONFIG_MODULES)",
                _ => "",
            };
            Err(failure(format!("{error}{hint}; the kernel log above says more")))
        }
    }
}
