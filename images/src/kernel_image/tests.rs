//! Small kernels made by hand, packed as Kbuild packs them, whole and damaged.

use std::fs;
use std::io::Write as _;

use super::*;

/// Bytes of code in the test kernel: enough that damage in the middle is noticed.
const CODE: u32 = 40_000;

/// An ELF kernel: one loadable segment, and a note with the PVH entry if wanted.
fn vmlinux(machine: u8, pvh: bool) -> Vec<u8> {
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&[2, 0, machine, 0, 1, 0, 0, 0]);
    elf.extend_from_slice(&0x100_0000_u64.to_le_bytes());
    elf.extend_from_slice(&64_u64.to_le_bytes());
    elf.extend_from_slice(&[0; 12]);
    for half in [64_u16, 56, 2, 64, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let note_type = if pvh { 18_u32 } else { 5 };
    let mut note = Vec::new();
    for value in [4_u32, 8, note_type] {
        note.extend_from_slice(&value.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(&0x100_0000_u64.to_le_bytes());
    let mut segment = |kind: u32, offset: u64, size: u64| {
        elf.extend_from_slice(&kind.to_le_bytes());
        elf.extend_from_slice(&5_u32.to_le_bytes());
        for value in [offset, 0x100_0000, 0x100_0000, size, size, 4] {
            elf.extend_from_slice(&value.to_le_bytes());
        }
    };
    let notes = 64 + 2 * 56;
    segment(4, notes, note.len() as u64);
    segment(1, notes + note.len() as u64, u64::from(CODE));
    elf.extend_from_slice(&note);
    // Not compressible to nothing, and with calls in it, which the x86 filter of xz rewrites.
    let code = (0..CODE)
        .map(|i| if i % 7 == 0 { 0xe8 } else { i.wrapping_mul(2_654_435_761).to_le_bytes()[3] });
    elf.extend(code);
    elf
}

/// A bzImage around a payload: two setup sectors, release text, payload at an offset.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 3 * 512 + 0x40];
    let mut put =
        |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x20e, &0x100_u16.to_le_bytes());
    put(0x300, b"7.3.4-test (me@here) #1 SMP\0");
    put(0x236, &[1, 0]);
    put(0x248, &0x40_u32.to_le_bytes());
    put(0x24c, &u32::try_from(payload.len()).unwrap().to_le_bytes());
    image.extend_from_slice(payload);
    image.extend_from_slice(b"what follows the payload");
    image
}

/// Packs as Kbuild does: the size follows in all formats but gzip's.
fn pack(method: &str, plain: &[u8]) -> Vec<u8> {
    use lzma_rust2::{CheckType, FilterType, LzmaOptions, LzmaWriter, XzOptions, XzWriter};
    let mut packed = match method {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            writer.write_all(plain).unwrap();
            return writer.finish().unwrap();
        }
        "bzip2" => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        "xz" => {
            let mut options = XzOptions::with_preset(6);
            options.set_check_sum_type(CheckType::Crc32);
            options.prepend_pre_filter(FilterType::BcjX86, 0);
            let mut writer = XzWriter::new(Vec::new(), options).unwrap();
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        "lzma" => {
            let options = LzmaOptions::with_preset(6);
            let mut writer = LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        "zstd" => {
            let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            writer.window_log(27).unwrap();
            writer.write_all(plain).unwrap();
            writer.finish().unwrap()
        }
        "lz4" => {
            let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
            for chunk in plain.chunks(15_000) {
                let block = lz4_flex::block::compress(chunk);
                packed.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
                packed.extend_from_slice(&block);
            }
            packed
        }
        "lzo" => b"\x89LZO and more than sixteen bytes".to_vec(),
        _ => return plain.to_vec(),
    };
    packed.extend_from_slice(&u32::try_from(plain.len()).unwrap().to_le_bytes());
    packed
}

const METHODS: [&str; 7] = ["gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "nothing"];

fn open(content: &[u8]) -> Result<KernelImage, ImageError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    KernelImage::open(file.path())
}

fn content(mut image: KernelImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.elf.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_vmlinux_is_used_as_it_is() {
    for pvh in [true, false] {
        let elf = vmlinux(62, pvh);
        let image = open(&elf).unwrap();
        assert_eq!((image.kind, image.has_pvh), (ImageKind::Vmlinux, pvh));
        assert_eq!(content(image), elf);
    }
}

#[test]
fn the_payload_comes_out_of_a_bzimage_however_it_is_packed() {
    let mut elf = vmlinux(62, true);
    // Kbuild appends relocations to the ELF file.
    elf.extend_from_slice(&[9; 100]);
    for method in METHODS {
        let image =
            open(&bzimage(&pack(method, &elf))).unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!((image.kind, image.has_pvh), (ImageKind::BzImage, true), "{method}");
        assert_eq!(image.release.as_deref(), Some("7.3.4-test"));
        assert!(content(image) == elf, "{method}");
    }
}

#[test]
fn a_bzimage_cut_off_anywhere_is_truncated() {
    let whole = bzimage(&pack("gzip", &vmlinux(62, true)));
    for length in [0x268, 3 * 512, whole.len() / 2, whole.len() - 30] {
        let error = open(&whole[..length]).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{length}: {error}");
    }
    for length in [0, 3, 0x200, 0x204] {
        let error = open(&whole[..length]).unwrap_err();
        assert!(matches!(error, ImageError::NotAKernel { .. }), "{length}: {error}");
    }
    for length in 0x205..0x268 {
        open(&whole[..length]).unwrap_err();
    }
}

#[test]
fn a_vmlinux_cut_off_anywhere_is_refused() {
    let whole = vmlinux(62, true);
    for length in [whole.len() - 1, 1000, 200, 100] {
        let error = open(&whole[..length]).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{length}: {error}");
    }
    for length in [63, 20, 19, 4] {
        let error = open(&whole[..length]).unwrap_err();
        assert!(matches!(error, ImageError::NotAKernel { .. }), "{length}: {error}");
    }
    let text = open(&whole[..1000]).unwrap_err().to_string();
    assert!(
        text.contains("is truncated: its last segment ends at byte") && text.contains("has 1000"),
        "{text}"
    );
}

#[test]
fn a_payload_damaged_inside_never_boots() {
    let elf = vmlinux(62, true);
    for method in ["gzip", "bzip2", "xz", "zstd"] {
        let mut packed = pack(method, &elf);
        let middle = packed.len() / 2;
        packed[middle..middle + 64].fill(0x55);
        match open(&bzimage(&packed)) {
            Err(ImageError::Corrupt { .. }) => {}
            // This frame carries no checksum: damage in the content alone goes unnoticed.
            Ok(image) if method == "zstd" => assert_eq!(content(image).len(), elf.len()),
            other => panic!("{method}: {other:?}"),
        }
        // The payload ends too early although the file has all of it.
        let cut = &packed[..packed.len() / 3];
        let error = open(&bzimage(cut)).unwrap_err();
        assert!(
            matches!(error, ImageError::Corrupt { .. } | ImageError::Truncated { .. }),
            "{method}: {error}"
        );
    }
    let error = open(&bzimage(&pack("lz4", &elf)[..9_000])).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
}

#[test]
fn kernels_for_other_machines_are_named() {
    let found = |content: &[u8]| match open(content) {
        Err(ImageError::WrongArchitecture { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(&vmlinux(183, false)), "AArch64");
    assert_eq!(found(&vmlinux(243, false)), "RISC-V");
    assert_eq!(found(&bzimage(&pack("gzip", &vmlinux(3, false)))), "32-bit x86");
    let mut narrow = vmlinux(62, true);
    narrow[4] = 1;
    assert_eq!(found(&narrow), "x86 with 32-bit addresses (x32)");
    let mut image = vec![0; 4096];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    assert_eq!(found(&image), "AArch64");
    let mut old = bzimage(&pack("gzip", &vmlinux(62, true)));
    old[0x236] = 0;
    assert_eq!(found(&old), "32-bit x86");
}

#[test]
fn what_is_not_a_kernel_is_refused_with_a_reason() {
    let why = |content: &[u8]| match open(content) {
        Err(ImageError::NotAKernel { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&[b'#'; 4096]).contains("neither"));
    assert!(why(&pack("gzip", &vmlinux(62, true))).contains("compressed"));
    let mut module = vmlinux(62, true);
    module[16] = 1;
    assert!(why(&module).contains("--module"));
    let mut program = vmlinux(62, true);
    program[64] = 3;
    assert!(why(&program).contains("program for Linux"));
    assert!(why(&bzimage(b"no magic, and at least sixteen bytes")).contains("no known way"));
    assert!(why(&bzimage(b"short")).contains("impossible size"));
    assert!(why(&bzimage(&pack("xz", &[0; 4096]))).contains("not an ELF file"));
}

#[test]
fn a_method_that_cannot_be_unpacked_is_named() {
    let error = open(&bzimage(&pack("lzo", &[]))).unwrap_err();
    assert!(matches!(error, ImageError::Compression { method: "lzo", .. }), "{error}");
}

#[test]
fn a_header_full_of_ones_is_not_a_panic() {
    for fill in [0xff, 0x7f, 0x80] {
        let mut image = bzimage(&pack("gzip", &vmlinux(62, true)));
        image[0x248..0x250].fill(fill);
        assert!(open(&image).is_err());
        image[0x1f1] = fill;
        image[0x20e] = fill;
        assert!(open(&image).is_err());
        let mut elf = vmlinux(62, true);
        elf[32..40].fill(fill);
        assert!(open(&elf).is_err());
        let mut elf = vmlinux(62, true);
        elf[64 + 8..64 + 16].fill(fill);
        assert!(open(&elf).is_err());
        let mut elf = vmlinux(62, true);
        elf[176..184].fill(fill);
        assert!(!open(&elf).unwrap().has_pvh);
    }
}

#[test]
fn a_build_tree_gives_its_kernel_and_itself() {
    let folder = tempfile::tempdir().unwrap();
    let error = KernelImage::open(folder.path()).unwrap_err();
    assert!(matches!(error, ImageError::NotBuilt { .. }), "{error}");
    fs::write(folder.path().join("vmlinux"), vmlinux(62, true)).unwrap();
    let image = KernelImage::open(folder.path()).unwrap();
    assert_eq!((image.kind, image.build_tree), (ImageKind::BuildTree, None));
    for name in [
        ".config",
        "Module.symvers",
        "Makefile",
        "scripts/mod/modpost",
        "include/config/kernel.release",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "7.3.4-own\n").unwrap();
    }
    let image = KernelImage::open(folder.path()).unwrap();
    assert_eq!(image.build_tree, Some(folder.path().canonicalize().unwrap()));
    assert_eq!(image.release.as_deref(), Some("7.3.4-own"));
}

#[test]
fn a_payload_can_be_kept() {
    let elf = vmlinux(62, true);
    let folder = tempfile::tempdir().unwrap();
    let mut image = open(&bzimage(&pack("xz", &elf))).unwrap();
    image.write_to(&folder.path().join("vmlinux")).unwrap();
    assert!(fs::read(folder.path().join("vmlinux")).unwrap() == elf);
    assert!(content(image) == elf);
}

#[test]
fn a_path_that_is_not_there_is_reported() {
    let error = KernelImage::open(Path::new("/nonexistent/vmlinux")).unwrap_err().to_string();
    assert!(error.starts_with("Opening /nonexistent/vmlinux failed: No such file"), "{error}");
}
