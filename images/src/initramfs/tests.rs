//! The archive, read back and compared name by name with what went in.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use cpio::newc::Reader;

use super::*;
use crate::progress::Silent;

#[derive(Debug)]
struct Read {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

/// Reads an archive, checking what must be the same everywhere.
fn read(bytes: &[u8]) -> BTreeMap<String, Read> {
    let mut found = BTreeMap::new();
    let mut input = bytes;
    let mut previous = String::new();
    loop {
        let mut reader = Reader::new(input).unwrap();
        let entry = reader.entry();
        if entry.is_trailer() {
            return found;
        }
        assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
        assert_eq!(entry.ino() as usize, found.len() + 1);
        let name = entry.name().to_owned();
        assert!(name > previous, "{name} after {previous}");
        previous.clone_from(&name);
        let (mode, device) = (entry.mode(), (entry.rdev_major(), entry.rdev_minor()));
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        found.insert(name, Read { mode, device, content });
        input = reader.finish().unwrap();
    }
}

#[test]
fn all_kinds_of_entries_come_back() {
    let mut image = Initramfs::new();
    image.file("/init", 0o755, "odd").unwrap();
    image.file("/etc/deep/er/empty", 0o600, "").unwrap();
    image.symlink("/bin/sh", "busybox").unwrap();
    image.device("/dev/ttyS0", 0o620, 4, 64).unwrap();
    let entries = read(&image.to_bytes().unwrap());
    assert_eq!(
        (entries["init"].mode, entries["init"].content.as_slice()),
        (0o100755, b"odd".as_slice())
    );
    assert_eq!(
        (entries["etc/deep/er/empty"].mode, entries["etc/deep/er/empty"].content.len()),
        (0o100600, 0)
    );
    assert_eq!(entries["etc/deep/er"].mode, 0o040755);
    assert_eq!(
        (entries["bin/sh"].mode, entries["bin/sh"].content.as_slice()),
        (0o120777, b"busybox".as_slice())
    );
    assert_eq!((entries["dev/ttyS0"].mode, entries["dev/ttyS0"].device), (0o020620, (4, 64)));
    assert_eq!((entries["dev/console"].mode, entries["dev/console"].device), (0o020600, (5, 1)));
    assert_eq!(entries["dev/null"].device, (1, 3));
    assert_eq!(entries["tmp"].mode, 0o041777);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("tool");
    let build = |reverse: bool, mode: u32| {
        std::fs::write(&host, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&host, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut image = Initramfs::new();
        let mut names = ["/bin/b", "/bin/a", "/lib/z", "/bin/c/d"];
        if reverse {
            names.reverse();
        }
        for name in names {
            image.host_file(name, &host).unwrap();
        }
        image.to_bytes().unwrap()
    };
    let first = build(false, 0o755);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(first == build(true, 0o755));
    // Another user's umask changes nothing, the executable bit does.
    assert!(first == build(true, 0o700));
    assert!(first != build(true, 0o644));
}

#[test]
fn a_later_file_replaces_an_earlier_one_but_never_a_folder() {
    let mut image = Initramfs::new();
    image.symlink("/bin/lspci", "busybox").unwrap();
    image.file("/bin/lspci", 0o755, "real").unwrap();
    assert_eq!(read(&image.to_bytes().unwrap())["bin/lspci"].content, b"real");
    assert!(matches!(image.file("/bin", 0o755, ""), Err(InitramfsError::Conflict { .. })));
    assert!(matches!(image.file("/bin/lspci/x", 0o755, ""), Err(InitramfsError::Conflict { .. })));
    assert!(matches!(image.directory("/bin/lspci", 0o755), Err(InitramfsError::Conflict { .. })));
    assert!(image.contains("/bin//lspci") && !image.contains("/bin/setpci"));
}

#[test]
fn paths_that_leave_the_guest_are_refused() {
    let mut image = Initramfs::new();
    for path in [
        "relative",
        "",
        "/",
        "//",
        "/..",
        "/a/../b",
        "/nul\0",
        &format!("/{}", "x".repeat(PATH_LIMIT)),
    ] {
        assert!(
            matches!(image.file(path, 0o644, ""), Err(InitramfsError::BadPath { .. })),
            "{path:?}"
        );
    }
    image.file("//a/./b/", 0o644, "").unwrap();
    assert!(image.contains("/a/b"));
}

#[test]
fn a_program_brings_its_libraries() {
    let host = ["/usr/bin/true", "/bin/true"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .unwrap();
    let mut image = Initramfs::new();
    image.program("/bin/true", host).unwrap();
    let names: Vec<_> = image.entries.keys().cloned().collect();
    assert!(names.iter().any(|name| name.ends_with("/libc.so.6")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("/ld-linux-x86-64.so.2")), "{names:?}");
}

#[test]
fn a_static_program_and_a_script_need_nothing() {
    // Our own programs are static.
    let me = std::env::current_exe().unwrap();
    assert_eq!(libraries::all(&me, &std::fs::read(&me).unwrap()).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(libraries::all(Path::new("x"), b"#!/bin/sh\n").unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn damaged_and_foreign_programs_are_reported() {
    let program = std::fs::read("/bin/sh").unwrap();
    let try_one = |content: &[u8]| libraries::all(Path::new("/bin/x"), content);
    assert!(matches!(try_one(&program[..100]), Err(InitramfsError::NotAProgram { .. })));
    assert!(matches!(try_one(&program[..5]), Err(InitramfsError::NotAProgram { .. })));
    let mut foreign = program.clone();
    foreign[18] = 183;
    let error = try_one(&foreign).unwrap_err().to_string();
    assert_eq!(error, "/bin/x cannot run in the guest: it is not for 64-bit x86.");
}

#[test]
fn busybox_gives_its_commands_and_keeps_what_is_there() {
    let mut image = Initramfs::new();
    image.file("/bin/mount", 0o755, "mine").unwrap();
    match image.busybox(&Silent) {
        Ok(()) => {}
        // A machine without it: that is what the error is for.
        Err(error) => return assert!(error.to_string().contains("busybox-static"), "{error}"),
    }
    let entries = read(&image.to_bytes().unwrap());
    assert_eq!(entries["bin/sh"].content, b"busybox");
    assert_eq!(entries["bin/mount"].content, b"mine");
    assert_eq!(entries["bin/busybox"].mode, 0o100755);
}

#[test]
fn what_is_stored_is_found_again_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path()).unwrap();
    let image = |text: String| {
        let mut image = Initramfs::new();
        image.file("/init", 0o755, text).unwrap();
        image
    };
    let path = image("a".to_owned()).store(&cache).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), image("a".to_owned()).to_bytes().unwrap());
    assert_eq!(path, image("a".to_owned()).store(&cache).unwrap());
    for number in 0..KEPT + 5 {
        image(number.to_string()).store(&cache).unwrap();
    }
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), KEPT);
    let error = image("b".to_owned()).store(&cache.limited_to(100)).unwrap_err();
    assert!(matches!(error, InitramfsError::Cache(CacheError::NoSpace { .. })), "{error}");
}
