//! Builds against a kernel, where there is one in the user's cache; everything else without.

use super::*;
use crate::kernel;
use crate::progress::Silent;
use crate::skip;

const KBUILD: &str = "obj-m := trivial.o\n";
const TRIVIAL: &str = "// SPDX-License-Identifier: GPL-2.0\n#include <linux/module.h>\n\
    static int __init trivial_init(void)\n{\n\tpr_info(\"trivial: loaded\\n\");\n\treturn 0;\n}\n\
    static void __exit trivial_exit(void)\n{\n}\n\
    module_init(trivial_init);\nmodule_exit(trivial_exit);\n\
    MODULE_DESCRIPTION(\"A module that does nothing\");\nMODULE_LICENSE(\"GPL\");\n";

/// Something that looks like a built kernel.
fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["Makefile", ".config", "Module.symvers", "scripts/mod/modpost", "scripts/module.lds"]
    {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    folder
}

fn source(c: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Kbuild"), KBUILD).unwrap();
    fs::write(folder.path().join("trivial.c"), c).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    sources(folder)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn only_sources_count() {
    let folder = source(TRIVIAL);
    for name in [
        "include/uapi/x.h",
        "trivial.o",
        "trivial.mod.c",
        ".trivial.o.cmd",
        "agent/src/main.rs",
        "target/gen.c",
        ".hidden/y.c",
        "Module.symvers",
        "notes.txt",
        "sub/Makefile",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    std::os::unix::fs::symlink(".", folder.path().join("loop")).unwrap();
    assert_eq!(names(folder.path()), ["Kbuild", "include/uapi/x.h", "sub/Makefile", "trivial.c"]);
}

#[test]
fn every_input_counts_in_the_key() {
    let (tree, folder) = (tree(), source(TRIVIAL));
    let key = |strict| {
        let files = sources(folder.path()).unwrap();
        key(tree.path(), strict, &files, &Silent).unwrap()
    };
    let base = key(true);
    assert_eq!(base, key(true));
    assert_ne!(base, key(false));
    fs::write(tree.path().join("Module.symvers"), "another").unwrap();
    let other = key(true);
    assert_ne!(base, other);
    fs::write(folder.path().join("more.h"), "").unwrap();
    assert_ne!(other, key(true));
}

#[test]
fn a_folder_that_is_not_a_module_and_a_kernel_that_is_not_built_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache")).unwrap();
    let request = |source: &Path, tree: &Path| ModuleRequest {
        source: source.into(),
        tree: tree.into(),
        strict: true,
    };
    let tree = tree();
    let error = build(&cache, &request(folder.path(), tree.path()), &Silent).unwrap_err();
    assert!(matches!(error, ModuleError::NotASource { .. }), "{error}");
    fs::remove_file(tree.path().join("Module.symvers")).unwrap();
    let error = build(&cache, &request(folder.path(), tree.path()), &Silent).unwrap_err();
    assert!(matches!(error, ModuleError::NotATree { missing: "Module.symvers", .. }), "{error}");
}

#[test]
fn modules_are_found_whichever_way_kbuild_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("key");
    fs::create_dir_all(made.join("sub")).unwrap();
    fs::write(made.join("sub/a.ko"), "").unwrap();
    for line in ["sub/a.o".to_owned(), format!("{}.partial/sub/a.o", made.display())] {
        fs::write(made.join("modules.order"), line).unwrap();
        assert_eq!(whole(&made).unwrap(), [made.join("sub/a.ko")]);
    }
}

#[test]
fn warnings_of_all_tools_are_seen() {
    assert!(is_warning("/x/trivial.c:3:5: warning: unused variable 'a' [-Wunused-variable]"));
    assert!(is_warning("WARNING: modpost: missing MODULE_DESCRIPTION() in trivial.o"));
    assert!(is_warning("trivial.o: warning: objtool: f() falls through"));
    assert!(!is_warning("  CC [M]  warnings.o"));
    assert!(!is_warning("Skipping BTF generation for trivial.ko due to unavailability of vmlinux"));
}

/// The kernel in the user's cache, if one has been built.
fn kernel() -> Option<PathBuf> {
    let kernels = kernel::list(&Cache::open().ok()?);
    kernels
        .iter()
        .find(|kernel| kernel.flavour == kernel::Flavour::Lab)
        .map(kernel::BuiltKernel::build_tree)
}

#[test]
fn a_module_is_built_once_and_nothing_is_written_beside_its_sources() {
    let Some(tree) = kernel() else {
        return skip("no kernel in the cache (`peerdma kernel build`)");
    };
    let (folder, cache) = (source(TRIVIAL), tempfile::tempdir().unwrap());
    let cache = Cache::at(cache.path()).unwrap();
    let request = ModuleRequest { source: folder.path().into(), tree, strict: true };
    let first = build(&cache, &request, &Silent).unwrap();
    assert!(!first.cached);
    assert!(fs::read(&first.files[0]).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(names(folder.path()), ["Kbuild", "trivial.c"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let second = build(&cache, &request, &Silent).unwrap();
    assert_eq!((second.files, second.cached), (first.files, true));
}

#[test]
fn a_warning_and_an_error_fail_the_build_with_the_users_own_paths() {
    let Some(tree) = kernel() else {
        return skip("no kernel in the cache (`peerdma kernel build`)");
    };
    let cache = tempfile::tempdir().unwrap();
    let cache = Cache::at(cache.path()).unwrap();
    let doubtful = TRIVIAL.replace("\treturn 0;", "\tint unused;\n\n\treturn 0;");
    let folder = source(&doubtful);
    let request = ModuleRequest { source: folder.path().into(), tree: tree.clone(), strict: true };
    let error = build(&cache, &request, &Silent).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ModuleError::Warnings { .. }), "{text}");
    assert!(text.contains("unused variable"), "{text}");
    build(&cache, &ModuleRequest { strict: false, ..request }, &Silent).unwrap();

    let folder = source(&TRIVIAL.replace("return 0", "return nonsense"));
    let request = ModuleRequest { source: folder.path().into(), tree, strict: false };
    let text = build(&cache, &request, &Silent).unwrap_err().to_string();
    assert!(text.contains("nonsense") && text.contains("failed"), "{text}");
    assert!(fs::read_dir(cache.root().join(KIND)).unwrap().count() == 1);
}
