//! Sources that travel inside the program, unpacked where compilers can read them.
//!
//! They lie in the cache under a hash of their content. What is there is compared with what the program has before it
//! is used: files that were changed, added or lost are replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cache::{Cache, CacheError, Key};
use super::progress::Progress;

/// The cache's folder of unpacked sources.
const KIND: &str = "embedded";
/// How many are kept: programs of several versions may be in use.
const KEPT: usize = 16;
/// Counts changes of this code that change what comes out.
const RECIPE: u32 = 1;

/// The module of the nested test host, which works around a race of QEMU's TCG, and its
/// licence: file names and contents.
pub const TEST_HOST_MODULE: &[(&str, &str)] = &[
    ("COPYING", include_str!("../test-host/COPYING")),
    ("Kbuild", include_str!("../test-host/Kbuild")),
    ("svm_under_tcg.c", include_str!("../test-host/svm_under_tcg.c")),
];

/// Puts `files` (paths with `/`, relative, and their contents) into the cache, unless they are there. Gives the folder
/// with them, which is called `name`: messages and logs show it.
///
/// # Errors
/// When the cache cannot be written.
pub fn unpack(
    cache: &Cache,
    name: &str,
    files: &[(&str, &str)],
    progress: &dyn Progress,
) -> Result<PathBuf, CacheError> {
    let fields = files.iter().flat_map(|(path, content)| [path, content]);
    let key = fields.fold(Key::new(KIND, RECIPE).field(name), |key, field| key.field(field));
    let key = key.finish();
    let folder = cache.path(KIND, &key).join(name);
    if !holds(&folder, files) {
        let lock = cache.lock(&format!("{KIND}-{key}"), progress)?;
        // Another run may have done it meanwhile.
        if !holds(&folder, files) {
            let staging = cache.stage(&lock, KIND, &key)?;
            for (path, content) in files {
                let path = staging.path().join(name).join(path);
                let written = path
                    .parent()
                    .map_or(Ok(()), fs::create_dir_all)
                    .and_then(|()| fs::write(&path, content));
                written.map_err(CacheError::io("unpacking sources", &path))?;
            }
            staging.commit()?;
        }
    }
    cache.keep_newest(KIND, &key, KEPT)?;
    Ok(folder)
}

/// Whether a folder holds exactly these files.
fn holds(folder: &Path, files: &[(&str, &str)]) -> bool {
    let mut expected: BTreeMap<PathBuf, &str> =
        files.iter().map(|(path, content)| (folder.join(path), *content)).collect();
    matches!(take(folder, &mut expected), Ok(true)) && expected.is_empty()
}

/// Takes what is in `folder` out of `expected`; false as soon as there is something else.
fn take(folder: &Path, expected: &mut BTreeMap<PathBuf, &str>) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        let good = match kind? {
            // As many folders as there are expected files below them, at most: others end the search.
            kind if kind.is_dir() => {
                expected.keys().any(|file| file.starts_with(&path)) && take(&path, expected)?
            }
            kind if kind.is_file() => match expected.remove(&path) {
                Some(content) => {
                    path.metadata()?.len() == content.len() as u64
                        && fs::read(&path)? == content.as_bytes()
                }
                None => false,
            },
            _ => false,
        };
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    const FILES: &[(&str, &str)] = &[("Kbuild", "obj-m := a.o\n"), ("include/uapi/a.h", "")];

    #[test]
    fn what_is_unpacked_is_what_was_embedded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let place = unpack(&cache, "driver", FILES, &Silent).unwrap();
        assert!(place.ends_with("driver"), "{}", place.display());
        for (path, content) in FILES {
            assert_eq!(fs::read_to_string(place.join(path)).unwrap(), *content);
        }
        let written = place.join("Kbuild").metadata().unwrap().modified().unwrap();
        assert_eq!(unpack(&cache, "driver", FILES, &Silent).unwrap(), place);
        let again = place.join("Kbuild").metadata().unwrap().modified().unwrap();
        assert_eq!(written, again, "it was written anew although nothing had changed");

        let other = unpack(&cache, "driver", &FILES[..1], &Silent).unwrap();
        assert_ne!(other, place);
        assert!(holds(&other, &FILES[..1]) && holds(&place, FILES));
    }

    #[test]
    fn what_somebody_changed_in_the_cache_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let place = unpack(&cache, "driver", FILES, &Silent).unwrap();
        type Damage = fn(&Path) -> io::Result<()>;
        let damages: [(&str, Damage); 6] = [
            ("content", |place| fs::write(place.join("Kbuild"), "obj-m := b.o\n")),
            ("a lost file", |place| fs::remove_file(place.join("include/uapi/a.h"))),
            ("one more file", |place| fs::write(place.join("include/b.h"), "")),
            ("one more folder", |place| fs::create_dir(place.join("more"))),
            ("a link", |place| {
                fs::rename(place.join("Kbuild"), place.join("../Kbuild"))?;
                std::os::unix::fs::symlink("../Kbuild", place.join("Kbuild"))
            }),
            ("no folder at all", |place| fs::remove_dir_all(place)),
        ];
        for (what, damage) in damages {
            damage(&place).unwrap();
            assert!(!holds(&place, FILES), "{what} is not noticed");
            assert_eq!(unpack(&cache, "driver", FILES, &Silent).unwrap(), place);
            assert!(holds(&place, FILES), "{what} is not mended");
        }
    }

    #[test]
    fn the_test_host_s_module_is_whole() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test-host");
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, TEST_HOST_MODULE.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
