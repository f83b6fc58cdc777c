//! The cache of kernels, without building one.

use super::*;
use crate::progress::Silent;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path()).unwrap();
    (folder, cache)
}

fn source(identity: &str) -> SourceTree {
    SourceTree {
        path: "/source".into(),
        identity: identity.to_owned(),
        name: "linux 7.3.4".to_owned(),
        version: Some("7.3.4-1".to_owned()),
    }
}

fn put(cache: &Cache, flavour: Flavour, key: &str) {
    let name = entry_name(flavour, key);
    let build = cache.folder(KERNELS).unwrap().join(&name).join("build");
    fs::create_dir_all(build.join("drivers/vfio/pci")).unwrap();
    fs::write(build.join("modules.order"), "drivers/vfio/vfio.o\ndrivers/vfio/pci/vfio-pci.o\n")
        .unwrap();
    fs::write(build.join("drivers/vfio/pci/vfio-pci.ko"), "ko").unwrap();
    let record =
        Record { flavour, release: "7.3.4-peerdma".to_owned(), source: "linux".to_owned() };
    let path = cache.path(KERNELS, &name).join(RECORD);
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
}

#[test]
fn every_input_counts_in_the_key() {
    let base = key(Flavour::Lab, &source("a"), &Silent).unwrap();
    assert_eq!(base, key(Flavour::Lab, &source("a"), &Silent).unwrap());
    assert_ne!(base, key(Flavour::Debug, &source("a"), &Silent).unwrap());
    assert_ne!(base, key(Flavour::Lab, &source("b"), &Silent).unwrap());
}

#[test]
fn only_whole_kernels_are_listed() {
    let (_folder, cache) = cache();
    assert!(list(&cache).is_empty());
    put(&cache, Flavour::Lab, "11");
    put(&cache, Flavour::Debug, "22");
    fs::create_dir(cache.path(KERNELS, "lab-33.partial")).unwrap();
    fs::create_dir(cache.path(KERNELS, "lab-44")).unwrap();
    fs::write(cache.path(KERNELS, "note"), "").unwrap();
    let kernels = list(&cache);
    let names: Vec<_> =
        kernels.iter().map(|kernel| (kernel.flavour, kernel.key.as_str())).collect();
    assert_eq!(names, [(Flavour::Debug, "22"), (Flavour::Lab, "11")]);
    clean(&cache, &Silent).unwrap();
    assert!(list(&cache).is_empty());
}

#[test]
fn a_module_is_found_by_either_spelling_of_its_name() {
    let (_folder, cache) = cache();
    put(&cache, Flavour::Lab, "11");
    let kernel = &list(&cache)[0];
    for name in ["vfio-pci", "vfio_pci"] {
        assert!(kernel.module(name).unwrap().ends_with("drivers/vfio/pci/vfio-pci.ko"));
    }
    // Named by the kernel, but its file is not there.
    assert_eq!(kernel.module("vfio"), None);
    assert_eq!(kernel.module("pci"), None);
}

#[test]
fn a_full_disk_is_reported_before_anything_is_built() {
    let (_folder, cache) = cache();
    let cache = cache.limited_to(10 << 20);
    let lock = cache.lock(Flavour::Lab.lock(), &Silent).unwrap();
    let request = KernelRequest {
        flavour: Flavour::Lab,
        source: Source::Distribution,
        refresh: false,
        jobs: None,
    };
    let error = compile(&cache, &lock, &request, &source("a"), "55", &Silent).unwrap_err();
    assert!(matches!(error, KernelError::Cache(CacheError::NoSpace { .. })), "{error}");
    assert!(!cache.root().join(KERNELS).exists());
}

#[test]
fn a_path_that_kbuild_cannot_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("my cache")).unwrap();
    let request = KernelRequest {
        flavour: Flavour::Lab,
        source: Source::Distribution,
        refresh: false,
        jobs: None,
    };
    let error = build_in(&cache, &request, &Silent).unwrap_err();
    assert!(matches!(error, KernelError::BadPath { .. }), "{error}");
    assert!(error.to_string().contains("XDG_CACHE_HOME"), "{error}");
}
