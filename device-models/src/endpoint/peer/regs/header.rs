//! Renders `guest-driver/peerdma_regs.h`.

use std::fmt::Write as _;

use super::{
    Access, Constant, Descriptor, Layout, Record, Register, channel, channel_control,
    channel_status, control, device, fault, flags, halt, identity, layout_of_bars, opcode, state,
    status,
};
use crate::checker::FindingClass;

const PROLOGUE: &str = "\
/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Registers, descriptors and completion records of the peer device.
 *
 * Generated from device-models/src/endpoint/peer/regs: edit there, then run
 *   PEERDMA_WRITE_HEADER=1 cargo test -p device-models c_header
 */
#ifndef PEERDMA_REGS_H
#define PEERDMA_REGS_H

#include <linux/build_bug.h>
#include <linux/types.h>
";

const CHANNEL_BLOCK: &str = "
/* Offset of channel n's block in the register BAR. */
#define PEERDMA_CHANNEL(n)\t(PEERDMA_CHANNEL_BASE + (n) * PEERDMA_CHANNEL_STRIDE)
";

/// The C header of the guest driver: SPDX line, constants, structures with checked sizes.
pub fn c_header() -> String {
    let mut out = String::from(PROLOGUE);
    constants(&mut out, identity::ABOUT, identity::TABLE);
    constants(&mut out, layout_of_bars::ABOUT, layout_of_bars::TABLE);
    out.push_str(CHANNEL_BLOCK);
    registers(&mut out, device::ABOUT, device::TABLE);
    constants(&mut out, control::ABOUT, control::TABLE);
    registers(&mut out, channel::ABOUT, channel::TABLE);
    for (about, table) in [
        (channel_control::ABOUT, channel_control::TABLE),
        (channel_status::ABOUT, channel_status::TABLE),
        (state::ABOUT, state::TABLE),
        (halt::ABOUT, halt::TABLE),
        (opcode::ABOUT, opcode::TABLE),
        (flags::ABOUT, flags::TABLE),
        (status::ABOUT, status::TABLE),
        (fault::ABOUT, fault::TABLE),
    ] {
        constants(&mut out, about, table);
    }
    verdicts(&mut out);
    structure(&mut out, &Descriptor::LAYOUT);
    structure(&mut out, &Record::LAYOUT);
    out.push_str("\n#endif /* PEERDMA_REGS_H */\n");
    out
}

/// A comment block; one line stays on one line.
fn comment<'a>(out: &mut String, indent: &str, lines: impl IntoIterator<Item = &'a str>) {
    let lines: Vec<&str> = lines.into_iter().map(str::trim).collect();
    if let [line] = lines[..] {
        let _ = writeln!(out, "{indent}/* {line} */");
        return;
    }
    let _ = writeln!(out, "{indent}/*");
    for line in lines {
        let _ = writeln!(out, "{indent} * {line}");
    }
    let _ = writeln!(out, "{indent} */");
}

/// `#define NAME value` with the value at column 40, tabs 8 wide.
fn define(out: &mut String, name: &str, value: u64) {
    let name = format!("PEERDMA_{}", name.trim_start_matches('_'));
    let column = "#define ".len() + name.len();
    let tabs = (40usize.saturating_sub(column)).div_ceil(8).max(1);
    let _ = writeln!(out, "#define {name}{}{value:#x}", "\t".repeat(tabs));
}

fn constants(out: &mut String, about: &[&str], table: &[Constant]) {
    out.push('\n');
    comment(out, "", about.iter().copied());
    for row in table {
        comment(out, "", row.about.iter().copied());
        define(out, row.name, row.value);
    }
}

/// The checker's classes: `iommu.unmapped` becomes `PEERDMA_VERDICT_IOMMU_UNMAPPED`.
fn verdicts(out: &mut String) {
    out.push('\n');
    comment(out, "", ["Lab only: classes of findings, in CH_VERDICT; docs/findings.md says more."]);
    for class in FindingClass::ALL {
        let name: String = class
            .name()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        define(out, &format!("VERDICT_{name}"), class.code().into());
    }
}

fn registers(out: &mut String, about: &[&str], table: &[Register]) {
    out.push('\n');
    comment(out, "", about.iter().copied());
    for row in table {
        let access = match row.access {
            Access::ReadOnly => "Read only.",
            Access::ReadWrite => "Read and write.",
            Access::Setup => {
                "Read and write; writes are ignored while the channel is enabled or busy."
            }
        };
        comment(out, "", row.about.iter().copied().chain([access]));
        define(out, row.name, row.offset);
    }
}

fn structure(out: &mut String, layout: &Layout) {
    out.push('\n');
    comment(out, "", layout.about.iter().copied());
    let _ = writeln!(out, "struct peerdma_{} {{", layout.name);
    for field in layout.fields {
        comment(out, "\t", field.about.iter().copied());
        let array = field.count.map_or(String::new(), |count| format!("[{count}]"));
        let _ = writeln!(out, "\t{} {}{array};", field.c_type, field.name);
    }
    out.push_str("};\n");
    let _ = writeln!(
        out,
        "\nstatic_assert(sizeof(struct peerdma_{}) == {});",
        layout.name, layout.size
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-driver/peerdma_regs.h");

    #[test]
    fn the_committed_c_header_is_up_to_date() {
        if std::env::var_os("PEERDMA_WRITE_HEADER").is_some() {
            std::fs::write(PATH, c_header()).unwrap();
        }
        let path = std::path::Path::new(PATH);
        if !path.parent().is_some_and(std::path::Path::exists) {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let line = format!("SKIP {name}: {PATH} is not part of the package\n");
            // Not captured by libtest; `make test` counts it.
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == c_header(),
            "guest-driver/peerdma_regs.h differs from device-models/src/endpoint/peer/regs; write \
             it anew with\n  \
             PEERDMA_WRITE_HEADER=1 cargo test -p device-models c_header"
        );
    }

    #[test]
    fn names_are_unique_and_registers_aligned() {
        let header = c_header();
        let mut names: Vec<&str> =
            header.lines().filter_map(|line| line.strip_prefix("#define PEERDMA_")).collect();
        names.iter_mut().for_each(|line| *line = line.split(['\t', '(']).next().unwrap());
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a name is defined twice");

        for table in [device::TABLE, channel::TABLE] {
            assert!(
                table.iter().all(|register| register.offset % 4 == 0 && register.offset < 0x1000)
            );
            assert!(table.is_sorted_by(|a, b| a.offset < b.offset));
        }
    }
}
