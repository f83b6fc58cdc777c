//! The commands, and what their help teaches.

use clap::{Args, Parser, Subcommand};

use crate::kinds::{Direction, Importer, MemoryKind, Side};
use crate::operand::{Length, Operand, Size};

/// Printed below the list of commands.
const AFTER_HELP: &str = "\
Begin with:
  peerdmactl list                       the devices, and which may reach which
  peerdmactl transfer peer0 peer1       one P2P transfer, each step as the command that does it
  peerdmactl shell                      the same by hand; objects live until the shell ends

Each command is one call of the driver: `peerdmactl COMMAND --help` says what the kernel does then,
and in which file of the driver (guest-driver/ in the source tree) to read on.

Exit codes:
  0  done
  1  the driver or the device refused, or what was verified differs
  2  the command line, an object's name or an operand is wrong
  3  this guest has no peer device, or is not a guest of peerdma";

/// The program.
#[derive(Debug, Parser)]
#[command(name = "peerdmactl", about = "Transfers between peer devices by hand", after_help = AFTER_HELP,
    max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Print results and errors as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Run these commands, separated by `;`
    #[arg(short = 'c', value_name = "COMMANDS")]
    pub(crate) commands: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<Top>,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    #[command(flatten)]
    One(Command),
    /// Take commands from the keyboard; objects live until it ends
    ///
    /// Objects are file descriptors and handles of an open /dev/peerdmaN: the kernel frees them when the process ends
    /// (guest-driver/chardev.c, peerdma_release). So commands that use each other's objects need one process: this one.
    /// Tab completes, the arrow keys bring lines back, Ctrl-D ends.
    Shell,
    /// Take commands from a file (`-`: standard input), one a line; `#` begins a comment
    ///
    /// Ends at the first command that fails, with its exit code and the number of its line.
    Run {
        /// The file
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
        /// Go on after a command that fails; the exit code is that of the first
        #[arg(long)]
        keep_going: bool,
    },
}

/// A line of a shell or a script.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, max_term_width = 100, about = None,
    override_usage = "COMMAND [ARGUMENT]...",
    after_help = "COMMAND --help says more about one. `quit` or Ctrl-D ends.")]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the devices with their BARs, and which may reach which
    ///
    /// The table is what pci_p2pdma_distance() says of each pair (guest-driver/info.c): the number of bridges between the
    /// two, or that there is no path. The kernel asks it once more for each attachment, and then decides whether a peer's
    /// memory is mapped by its bus address or by the IOMMU. `peerdma explain` on the host shows why.
    #[command(visible_alias = "ls")]
    List {
        /// Every function on the bus as a client, not only peer devices
        #[arg(long)]
        all: bool,
    },
    /// Allocate memory of a device, or system memory for it
    ///
    /// `local` is a piece of the device's own memory behind BAR 2 (PEERDMA_ALLOC, guest-driver/memory.c). `system` are pages
    /// that the DMA API maps at once (PEERDMA_SYSTEM_ALLOC, guest-driver/system.c, dma_map_sgtable), `coherent` is
    /// dma_alloc_coherent(). The other kinds are made to be exported (PEERDMA_BUFFER_ALLOC, guest-driver/buffers.c).
    Alloc(Alloc),
    /// Make a dma-buf of memory
    ///
    /// dma_buf_export() gives a file descriptor that stands for the memory (guest-driver/export.c). Nothing is mapped for any
    /// device yet; any process that gets the descriptor can import it or mmap it.
    Export {
        /// Local memory or a buffer
        #[arg(value_name = "OBJECT")]
        object: String,
        #[command(flatten)]
        name: Name,
    },
    /// Attach a device to a dma-buf
    ///
    /// dma_buf_dynamic_attach() tells the exporter which device wants the memory (guest-driver/import.c). The exporter may
    /// refuse: our own asks pci_p2pdma_distance() in its attach() and answers EREMOTEIO without a path, EOPNOTSUPP to an
    /// importer that does not allow peer-to-peer.
    Import {
        /// The device that shall do DMA
        #[arg(value_name = "DEVICE")]
        device: String,
        /// The dma-buf
        #[arg(value_name = "BUFFER")]
        buffer: String,
        /// How it attaches
        #[arg(long, value_enum, default_value_t)]
        importer: Importer,
        #[command(flatten)]
        name: Name,
    },
    /// Map an import or system memory for its device
    ///
    /// For an import dma_buf_map_attachment() has the exporter make a scatterlist of DMA addresses for this device
    /// (guest-driver/mapping.c; our exporter's side is map() in guest-driver/export.c). Work that uses an import that is not
    /// mapped maps it by itself.
    Map {
        /// Import or system memory
        #[arg(value_name = "OBJECT")]
        object: String,
        /// What the device may do, as for the DMA API
        #[arg(long, value_enum, default_value_t)]
        direction: Direction,
    },
    /// Give a mapping back
    ///
    /// dma_buf_unmap_attachment() or dma_unmap_sgtable(), after the work that uses it (guest-driver/mapping.c). With a
    /// strict IOMMU the DMA addresses are invalid from then on: what still uses them is a finding, iommu.stale.
    Unmap {
        /// Import or system memory
        #[arg(value_name = "OBJECT")]
        object: String,
    },
    /// Show objects: their addresses, of which kind these are, and the path to them
    ///
    /// Addresses come from the mapping's scatterlist (PEERDMA_GET_SEGMENTS, guest-driver/object.c). A bus address goes
    /// straight through a switch, an IOVA to the IOMMU, a CPU physical address to the root complex untranslated.
    Show {
        /// An object; without it all
        #[arg(value_name = "OBJECT")]
        object: Option<String>,
    },
    /// Copy by a device's DMA engine
    ///
    /// A descriptor with source and destination goes into a channel's ring, and a doorbell starts it (PEERDMA_SUBMIT,
    /// guest-driver/submit.c, ring.c). Both operands are the device's own: its memory, its imports, or raw DMA addresses.
    /// Before it returns the driver has the device read the last byte back from a peer, since writes are posted.
    Copy {
        /// OBJECT[+OFFSET], or a DMA address 0x... with --device
        #[arg(value_name = "SOURCE")]
        source: Operand,
        /// Likewise
        #[arg(value_name = "DESTINATION")]
        destination: Operand,
        #[command(flatten)]
        work: WorkOptions,
    },
    /// Fill with a pattern of eight bytes, by a device's DMA engine
    ///
    /// A descriptor without a source (guest-driver/submit.c): the pattern repeats from the destination's first byte on,
    /// least significant byte first.
    Fill {
        /// OBJECT[+OFFSET], or a DMA address 0x... with --device
        #[arg(value_name = "DESTINATION")]
        destination: Operand,
        /// The pattern
        #[arg(long, value_parser = crate::operand::number, default_value = "0x1122334455667788")]
        pattern: u64,
        #[command(flatten)]
        work: WorkOptions,
    },
    /// Compute the CRC-32C of memory, by a device's DMA engine
    ///
    /// The device reads all of it and writes the sum into its completion record (guest-driver/ring.c).
    Checksum {
        /// OBJECT[+OFFSET], or a DMA address 0x... with --device
        #[arg(value_name = "SOURCE")]
        source: Operand,
        #[command(flatten)]
        work: WorkOptions,
    },
    /// Compare two pieces of memory, by a device's DMA engine
    ///
    /// The device reads both; the completion record has the offset of the first difference. Exit code 1 if there is one.
    Compare {
        /// OBJECT[+OFFSET], or a DMA address 0x... with --device
        #[arg(value_name = "ONE")]
        one: Operand,
        /// Likewise
        #[arg(value_name = "OTHER")]
        other: Operand,
        #[command(flatten)]
        work: WorkOptions,
    },
    /// Check by the CPU that memory holds a pattern of eight bytes
    ///
    /// The CPU looks through an mmap() of /dev/peerdmaN or of the dma-buf (guest-driver/memory.c, buffer_mmap.c), between
    /// the DMA_BUF_IOCTL_SYNC calls that hand the memory over. Exit code 1 if a byte differs.
    Verify {
        /// OBJECT[+OFFSET], or a dma-buf
        #[arg(value_name = "OBJECT")]
        object: Operand,
        /// The pattern, as given to `fill`
        #[arg(long, value_parser = crate::operand::number, default_value = "0x1122334455667788")]
        pattern: u64,
        /// Bytes [default: to the end]
        #[arg(long)]
        length: Option<Length>,
    },
    /// Print memory as the CPU sees it
    Dump {
        /// OBJECT[+OFFSET], or a dma-buf
        #[arg(value_name = "OBJECT")]
        object: Operand,
        /// Bytes
        #[arg(long, default_value = "64")]
        length: Length,
    },
    /// Have importers unmap a dma-buf, as its exporter
    ///
    /// dma_buf_invalidate_mappings() calls each importer's invalidate_mappings and waits for their fences
    /// (guest-driver/revoke.c). Importers map again with their next work.
    Invalidate {
        /// Local memory or a buffer
        #[arg(value_name = "OBJECT")]
        object: String,
    },
    /// Move a migrating buffer between local memory and RAM
    ///
    /// Importers are invalidated, their fences waited for, the contents copied (guest-driver/migrate.c).
    Move {
        /// A buffer of kind `migrating`
        #[arg(value_name = "OBJECT")]
        object: String,
        /// Where to
        #[arg(value_enum)]
        side: Side,
    },
    /// Give an object or a dma-buf back
    ///
    /// Waits for the work that uses it (PEERDMA_CLOSE, guest-driver/object.c). Memory that was exported stays until the last
    /// descriptor of its dma-buf is closed.
    Close {
        /// Its name
        #[arg(value_name = "OBJECT")]
        object: String,
    },
    /// Hand a dma-buf to another process, over a Unix socket
    ///
    /// SCM_RIGHTS makes the kernel install the same open file in the other process: a dma-buf is nothing but that. The
    /// other one says `receive SOCKET`.
    Send {
        /// The dma-buf
        #[arg(value_name = "BUFFER")]
        buffer: String,
        /// Path of the socket
        #[arg(value_name = "SOCKET", default_value = SOCKET)]
        socket: std::path::PathBuf,
        /// Seconds to wait for the other process
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Take a dma-buf from another process
    ///
    /// The other end of `send`: waits at the socket for one descriptor. The kernel installs it here as a file of this
    /// process's own, with its own reference to the memory; `import` attaches a device to it.
    Receive {
        /// Path of the socket
        #[arg(value_name = "SOCKET", default_value = SOCKET)]
        socket: std::path::PathBuf,
        #[command(flatten)]
        name: Name,
        /// Seconds to wait for the other process
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Read or write registers by name
    ///
    /// Past the driver, by readl() and writel() (PEERDMA_LAB_REGISTER, guest-driver/lab/ioctls.c). A channel's registers
    /// are `ch0.status`, .... docs/peer-device.md explains each. Writing where the driver does not expect it can stop a
    /// channel until the device is reset.
    #[command(visible_alias = "reg")]
    Register {
        /// The device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Its name; `chN` for all of a channel [default: those of the whole device]
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// What to write
        #[arg(value_name = "VALUE", value_parser = crate::operand::number)]
        value: Option<u64>,
    },
    /// Ring a channel's doorbell
    ///
    /// Writes the register TAIL: the index behind the last descriptor that the device may take. The driver does the same
    /// after it has written descriptors (guest-driver/ring.c). With the value that is there already the device finds its
    /// ring empty; with a larger one it takes what is in the ring as descriptors.
    Doorbell {
        /// The device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// The channel
        #[arg(value_name = "CHANNEL", default_value_t = 0)]
        channel: u32,
        /// What to write [default: what is there]
        #[arg(value_name = "TAIL", value_parser = crate::operand::number)]
        tail: Option<u64>,
    },
    /// One P2P transfer from beginning to end, each step as the command that does it
    ///
    /// DEVICE writes into the memory of TARGET: alloc, export, import, map, fill, copy, verify. With `ram` as TARGET into
    /// system memory. What the VMM has counted says by which route the bytes went.
    Transfer {
        /// The device whose engine copies
        #[arg(value_name = "DEVICE")]
        device: String,
        /// The device whose memory is written, or `ram`
        #[arg(value_name = "TARGET")]
        target: String,
        /// Bytes
        #[arg(long, default_value = "64K")]
        size: Size,
    },
    /// Measure copies between a device and a target
    ///
    /// DEVICE copies to TARGET's memory and from it, eight pieces of work in flight. The figures are those of emulated
    /// devices: compare them with each other, not with hardware.
    Bench {
        /// The device whose engine copies
        #[arg(value_name = "DEVICE")]
        device: String,
        /// The device whose memory is used, or `ram`
        #[arg(value_name = "TARGET")]
        target: String,
        /// Bytes of each copy
        #[arg(long, default_value = "1M")]
        size: Size,
        /// Copies in each direction
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        times: u32,
    },
    /// Make a mistake on purpose, and see what is found
    ///
    /// Each is one that drivers make. The checker reports it on the host's terminal as it would of any driver; `peerdma
    /// findings CLASS` there explains it. The driver's calls for that are in guest-driver/lab/.
    Misuse {
        /// Its name, or the beginning of one
        #[arg(value_name = "NAME", required_unless_present = "list")]
        name: Option<String>,
        /// List all mistakes
        #[arg(long)]
        list: bool,
    },
}

/// Where `send` and `receive` meet by default.
const SOCKET: &str = "/tmp/peerdmactl.sock";

/// The name of a new object.
#[derive(Debug, Clone, Args)]
pub(crate) struct Name {
    /// What to call it [default: a letter and a number]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// What to allocate.
#[derive(Debug, Args)]
pub(crate) struct Alloc {
    /// The device
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    /// Bytes, as 4096, 64K, 1M or 0x1000
    #[arg(value_name = "SIZE")]
    pub(crate) size: Size,
    /// What backs it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: MemoryKind,
    /// Scatter local memory over this many pieces
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) ranges: u32,
    /// What the device may do with system memory
    #[arg(long, value_enum, default_value_t)]
    pub(crate) direction: Direction,
    #[command(flatten)]
    pub(crate) name: Name,
}

/// How work is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkOptions {
    /// Bytes [default: to the end of the shortest operand]
    #[arg(long)]
    pub(crate) length: Option<Length>,
    /// The device whose engine does it [default: the operands']
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// The channel
    #[arg(long, default_value_t = 0)]
    pub(crate) channel: u32,
    /// Do not read the last byte back from a peer: a posted write may then still be under way
    #[arg(long)]
    pub(crate) no_flush: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_teaches() {
        for command in Line::command().get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().unwrap_or_else(|| panic!("{name} has no help"));
            assert!(about.to_string().len() > 15, "{name}");
            if ["dump", "help"].contains(&name) {
                continue;
            }
            let long = command.get_long_about();
            let long = long.unwrap_or_else(|| panic!("{name} does not say what happens"));
            assert!(long.to_string().len() > 120, "{name}");
        }
    }
}
