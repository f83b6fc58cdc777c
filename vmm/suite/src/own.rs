//! The user's own things in the guest: a driver, programs, files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use peerdma_images::cache::Cache;
use peerdma_images::initramfs::Initramfs;
use peerdma_images::kernel::{self, Availability};
use peerdma_images::module::{self, ModuleRequest};
use peerdma_images::progress::Progress;

use super::prepare::PrepareError;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Modules, or the folders of their sources, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
    /// Modules of the guest's kernel's own, loaded before all of these.
    pub kernel_modules: Vec<KernelModule>,
    /// Whether the lab's own driver is loaded before them; without modules it always is.
    pub with_driver: bool,
    /// Files.
    pub files: Vec<OwnFile>,
}

impl Own {
    /// Whether the guest gets the lab's driver: where the user's is to have the devices it does not, since the first
    /// one to come keeps them.
    pub fn wants_driver(&self) -> bool {
        self.with_driver || self.modules.is_empty()
    }

    /// Looks whether everything is there, before minutes go by.
    ///
    /// # Errors
    /// [`PrepareError::NoFile`] for the first that is missing, or is not a file; [`PrepareError::NotAModule`] for a file that
    /// no kernel can load.
    pub fn check(&self) -> Result<(), PrepareError> {
        let modules = self.modules.iter().map(|path| ("the module", path, path.exists()));
        if let Some(folder) = self.files.iter().find(|file| file.host.is_dir()) {
            return Err(PrepareError::NotAFile { what: "the file", path: folder.host.clone() });
        }
        let files = self.files.iter().map(|file| ("the file", &file.host, file.host.is_file()));
        if let Some((what, path, _)) = modules.chain(files).find(|(.., is_there)| !is_there) {
            return Err(PrepareError::NoFile { what, path: path.clone() });
        }
        self.modules.iter().filter(|path| !path.is_dir()).try_for_each(|path| {
            check_module(path).map_err(|why| PrepareError::NotAModule { path: path.clone(), why })
        })
    }

    /// The modules' files, in order; what is a folder is built against `tree`, the guest's kernel.
    ///
    /// # Errors
    /// When it cannot be built, or it is not known against what.
    pub fn built_modules(
        &self,
        cache: &Cache,
        tree: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, PrepareError> {
        let mut files = Vec::new();
        for path in &self.modules {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let tree = tree.ok_or_else(|| PrepareError::NoTree { path: path.clone() })?;
            let request =
                ModuleRequest { source: path.clone(), tree: tree.to_owned(), strict: false };
            let built = module::build(cache, &request, progress);
            files.extend(built.map_err(PrepareError::OwnModule)?.files);
        }
        Ok(files)
    }

    /// Puts the files into the guest; programs with the libraries that they need.
    ///
    /// # Errors
    /// When one cannot be read, or has a path that cannot be.
    pub fn pack(&self, initramfs: &mut Initramfs) -> Result<(), PrepareError> {
        for file in &self.files {
            let guest = file.guest_path();
            let packed = if is_executable(&file.host) {
                initramfs.program(&guest, &file.host)
            } else {
                initramfs.host_file(&guest, &file.host)
            };
            packed.map_err(PrepareError::OwnFile)?;
        }
        Ok(())
    }
}

/// Whether a kernel could load it, as far as its first bytes show; why not otherwise.
fn check_module(path: &Path) -> Result<(), String> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(18).read_to_end(&mut head));
    read.map_err(|error| error.to_string())?;
    match head.as_slice() {
        // Relocatable (ELF, e_type ET_REL), which is what the linker makes of a module.
        [0x7f, b'E', b'L', b'F', .., 1, 0] => Ok(()),
        [0x7f, b'E', b'L', b'F', ..] => Err("it is a program or a library".into()),
        _ => Err("it is not an ELF file; a compressed one must be unpacked".into()),
    }
}

/// A module of the guest's kernel's own, with parameters for it: `NAME [PARAMETER=VALUE]...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModule {
    /// Its name, as for modprobe.
    pub name: String,
    /// Its parameters, as for insmod: with the quotes that keep blanks in a value.
    pub parameters: Vec<String>,
}

impl FromStr for KernelModule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (name, parameters) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err("it is the name of a module, without a path and without .ko, and behind it parameters as in \
                        \"dmatest iterations=10\""
                .into());
        }
        Ok(Self { name: name.to_owned(), parameters: split(parameters)? })
    }
}

/// Takes parameters apart as the kernel does (lib/cmdline.c, `next_arg()`): at blanks outside of double quotes. There is
/// no way to write a quote that is none, and one that stays open would take all that follows with it.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parameters = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match (c, parameters.last_mut()) {
            (c, _) if c.is_ascii_whitespace() && !quoted => parameters.push(String::new()),
            (' ' | '!'..='~', Some(parameter)) => {
                quoted ^= c == '"';
                parameter.push(c);
            }
            _ => return Err(format!("{c:?} cannot stand in a parameter")),
        }
    }
    if quoted {
        return Err(
            "a double quote is not closed; it goes around a value with blanks, NAME=\"A B\"".into(),
        );
    }
    parameters.retain(|parameter| !parameter.is_empty());
    let has_name = |parameter: &&String| {
        let inner = parameter.strip_prefix('"').unwrap_or(parameter);
        let name = inner.split('=').next().unwrap_or_default();
        !name.is_empty() && !name.contains(['"', ' '])
    };
    match parameters.iter().find(|parameter| !has_name(parameter)) {
        Some(parameter) => Err(format!("{parameter:?} is not of the form NAME=VALUE")),
        None => Ok(parameters),
    }
}

impl KernelModule {
    /// The files of `modules` and of all that they need, in the order in which they can be loaded, with the parameters of
    /// those that have any. What is built into the kernel that was built in `tree` needs no file.
    ///
    /// # Errors
    /// [`PrepareError::NoKernelModule`] for the first that the kernel does not have.
    pub fn files(modules: &[Self], tree: &Path) -> Result<Vec<(PathBuf, String)>, PrepareError> {
        for Self { name, .. } in modules {
            if let Availability::Missing { near } = kernel::availability(tree, name) {
                return Err(PrepareError::NoKernelModule { name: name.clone(), near });
            }
        }
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        let files = kernel::modules_in_order(tree, &names)?;
        let parameters = |file: &Path| {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let same = |module: &&Self| kernel::plain(&module.name) == kernel::plain(&stem);
            let own = modules.iter().filter(same).flat_map(|module| &module.parameters);
            own.map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        Ok(files.into_iter().map(|file| (file.clone(), parameters(&file))).collect())
    }

    /// The parameters of those of `modules` that the kernel built in `tree` has built in, as its command line has them:
    /// nothing else reaches these.
    pub fn command_line(modules: &[Self], tree: &Path) -> Vec<String> {
        let built_in =
            |module: &&Self| kernel::availability(tree, &module.name) == Availability::BuiltIn;
        modules.iter().filter(built_in).flat_map(Self::prefixed).collect()
    }

    /// Its parameters with its name in front; a quote around a whole parameter goes around both.
    fn prefixed(&self) -> impl Iterator<Item = String> {
        let name = kernel::plain(&self.name);
        self.parameters.iter().map(move |parameter| match parameter.strip_prefix('"') {
            Some(quoted) => format!("\"{name}.{quoted}"),
            None => format!("{name}.{parameter}"),
        })
    }
}

/// A file of the host and its path in the guest: `HOST[:GUEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// On the host.
    pub host: PathBuf,
    /// In the guest, absolute; none: see [`OwnFile::guest_path`].
    pub guest: Option<String>,
}

impl OwnFile {
    /// Where it will be: what is executable in `/bin` unless said otherwise, the rest at the root.
    pub fn guest_path(&self) -> String {
        self.guest.clone().unwrap_or_else(|| {
            let name = self.host.file_name().unwrap_or_default().to_string_lossy();
            if is_executable(&self.host) { format!("/bin/{name}") } else { format!("/{name}") }
        })
    }
}

impl FromStr for OwnFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = match text.rsplit_once(":/") {
            Some((host, guest)) => (host, Some(format!("/{guest}"))),
            None => (text, None),
        };
        // A second path would be taken for part of the first one's name.
        if let Some((before, after)) = text.rsplit_once(':')
            && guest.is_none()
            && !std::path::Path::new(text).exists()
            && std::path::Path::new(before).exists()
        {
            return Err(format!("the path in the guest is absolute: write {before}:/{after}"));
        }
        if host.is_empty() || guest.as_ref().is_some_and(|guest| guest.ends_with('/')) {
            return Err("it is HOST or HOST:/PATH/IN/THE/GUEST, each the path of a file".into());
        }
        Ok(Self { host: host.into(), guest })
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_place_in_the_guest() {
        let parse = |text: &str| text.parse::<OwnFile>().map(|file| (file.host, file.guest));
        assert_eq!(parse("a/b"), Ok(("a/b".into(), None)));
        assert_eq!(parse("a:/etc/b"), Ok(("a".into(), Some("/etc/b".into()))));
        assert_eq!(parse("a:b"), Ok(("a:b".into(), None)));
        assert!(parse(":/x").is_err() && parse("a:/").is_err());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let file = OwnFile { host: path.clone(), guest: None };
        assert_eq!(file.guest_path(), "/tool");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(file.guest_path(), "/bin/tool");

        let own = Own { files: vec![file], ..Own::default() };
        let mut initramfs = Initramfs::new();
        own.check().unwrap();
        own.pack(&mut initramfs).unwrap();
        assert!(initramfs.contains("/bin/tool"));
    }

    #[test]
    fn a_module_of_the_kernel_s_has_a_name_and_perhaps_parameters() {
        let module = |name: &str, parameters: &str| KernelModule {
            name: name.into(),
            parameters: parameters
                .split(';')
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        assert_eq!("ioatdma".parse(), Ok(module("ioatdma", "")));
        assert_eq!(" dmatest  a=1  b=2,3 ".parse(), Ok(module("dmatest", "a=1;b=2,3")));
        for text in ["", " ", "a/b", "x.ko", "a=1"] {
            assert!(text.parse::<KernelModule>().is_err(), "{text:?}");
        }
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("modules.order"), "snd-core.o\nc.o\n").unwrap();
        std::fs::write(tree.path().join("modules.builtin"), "kernel/d.ko\n").unwrap();
        for (name, needs) in [("snd-core", "c"), ("c", "")] {
            let content = format!("\x7fELF\0depends={needs}\0");
            std::fs::write(tree.path().join(format!("{name}.ko")), content).unwrap();
        }
        let files = |modules: &[KernelModule]| KernelModule::files(modules, tree.path());
        let found = files(&[module("d", ""), module("snd_core", "x=1")]).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|(file, parameters)| {
                (file.file_name().unwrap().to_str().unwrap(), parameters.as_str())
            })
            .collect();
        assert_eq!(names, [("c.ko", ""), ("snd-core.ko", "x=1")]);
        let error = files(&[module("snd_cor", "")]).unwrap_err();
        assert!(error.is_of_the_user() && error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn parameters_of_what_is_built_in_go_on_the_kernel_s_command_line() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("modules.builtin"), "kernel/d/snd-core.ko\n").unwrap();
        std::fs::write(tree.path().join("modules.order"), "c.o\n").unwrap();
        std::fs::write(tree.path().join("c.ko"), "\x7fELF\0").unwrap();
        let line = |module: &str| {
            KernelModule::command_line(&[module.parse().unwrap()], tree.path()).join(" ")
        };
        assert_eq!(line("snd-core"), "");
        assert_eq!(line("snd-core a=1\tflag b=2,3"), "snd_core.a=1 snd_core.flag snd_core.b=2,3");
        assert_eq!(line("snd_core a=\"x  y\" \"b=x y\""), "snd_core.a=\"x  y\" \"snd_core.b=x y\"");
        // A module gets them when it is loaded.
        assert_eq!(line("c a=1"), "");
        for (text, part) in [
            ("m a=\"x y", "is not closed"),
            ("m a=x\u{a0}y", "cannot stand in a parameter"),
            ("m a=\"x\ny\"", "'\\n' cannot stand"),
            ("m =1", "is not of the form NAME=VALUE"),
            ("m \"\"", "is not of the form NAME=VALUE"),
            ("m \"a\"=1", "is not of the form NAME=VALUE"),
        ] {
            let error = text.parse::<KernelModule>().unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_users_driver_has_the_devices_unless_told_otherwise() {
        let mut own = Own::default();
        assert!(own.wants_driver());
        own.modules.push("/no/such.ko".into());
        assert!(!own.wants_driver());
        let error = own.check().unwrap_err().to_string();
        assert!(error.starts_with("the module /no/such.ko is not there"), "{error}");
        own.with_driver = true;
        assert!(own.wants_driver());
        let own = Own { files: vec!["/".parse().unwrap()], ..Own::default() };
        let error = own.check().unwrap_err();
        assert!(error.is_of_the_user() && error.to_string().contains("is a folder"), "{error}");
    }
}
