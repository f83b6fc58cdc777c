//! What a program needs to run: its interpreter and shared libraries, by what its ELF headers say. Nothing is executed.

use std::path::{Path, PathBuf};

use object::elf::{EM_X86_64, PT_INTERP};
use object::read::Object;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

use super::InitramfsError;

/// Where a dynamic linker looks by default, on Debian, Ubuntu and others.
const FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// What an ELF program asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The program that loads it: none for one that is linked statically.
    pub(super) interpreter: Option<String>,
    /// Names of shared libraries.
    pub(super) libraries: Vec<String>,
}

/// What a program asks for. A script, or anything else that is not an ELF file, asks for nothing that could be listed.
pub(super) fn needs(program: &Path, content: &[u8]) -> Result<Needs, InitramfsError> {
    if !content.starts_with(b"\x7fELF") {
        return Ok(Needs::default());
    }
    let not = |why: String| InitramfsError::NotAProgram { program: program.to_owned(), why };
    let damaged =
        |error: object::read::Error| not(format!("its ELF headers are damaged ({error})"));
    if content.get(4) != Some(&2) {
        return Err(not("it is not for 64-bit x86".to_owned()));
    }
    let elf: ElfFile64<'_> = ElfFile64::parse(content).map_err(damaged)?;
    let endian = elf.endian();
    if elf.elf_header().e_machine(endian) != EM_X86_64 {
        return Err(not("it is not for 64-bit x86".to_owned()));
    }
    let mut needs = Needs::default();
    for segment in
        elf.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == PT_INTERP)
    {
        let path = segment.interpreter(endian, content).map_err(damaged)?.unwrap_or_default();
        needs.interpreter = Some(String::from_utf8_lossy(path).into_owned());
    }
    for library in elf.import_libraries().map_err(damaged)? {
        needs
            .libraries
            .push(String::from_utf8_lossy(library.map_err(damaged)?.name()).into_owned());
    }
    Ok(needs)
}

/// Everything that `program` needs, and what that needs in turn. The paths are the host's, and serve in the guest too.
pub(super) fn all(program: &Path, content: &[u8]) -> Result<Vec<PathBuf>, InitramfsError> {
    let Needs { interpreter, libraries } = needs(program, content)?;
    let mut found: Vec<PathBuf> = interpreter.into_iter().map(PathBuf::from).collect();
    let mut wanted: Vec<(PathBuf, String)> =
        libraries.into_iter().map(|library| (program.to_owned(), library)).collect();
    while let Some((program, library)) = wanted.pop() {
        let path = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(&library))
            .find(|path| path.is_file());
        let path = path.ok_or(InitramfsError::Library { program, library })?;
        if found.contains(&path) {
            continue;
        }
        let content = std::fs::read(&path)
            .map_err(|source| InitramfsError::Read { path: path.clone(), source })?;
        wanted.extend(
            needs(&path, &content)?.libraries.into_iter().map(|library| (path.clone(), library)),
        );
        found.push(path);
    }
    Ok(found)
}
