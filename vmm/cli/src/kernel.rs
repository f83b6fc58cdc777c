//! `peerdma kernel`.

use clap::{Args, Subcommand};
use peerdma_images::cache::Cache;
use peerdma_images::kernel::{self, Flavour, KernelError, KernelRequest};
use peerdma_suite::prepare::Quiet;
use peerdma_support::say;

use super::{Exit, Failure, output};

/// What about kernels.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the guest's kernel from the distribution's source, unless it is in the cache
    ///
    /// The source comes from the distribution's archive (verified by its signatures) or from PEERDMA_KERNEL_TREE. It
    /// takes some minutes once; the result is kept in the cache under a hash of everything it was made from.
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    /// Which kernel: `lab`; `debug`, which checks itself (lockdep, KASAN, kmemleak, hung tasks); `stock`, the
    /// distribution's own, which is only unpacked; `lts`, the long-term series
    #[arg(long, value_name = "NAME", default_value = "lab", value_parser = flavour)]
    kernel: Flavour,
    /// The same as --kernel debug
    #[arg(long, conflicts_with = "kernel")]
    debug: bool,
    /// Look in the archive for a newer source, although one was chosen before
    #[arg(long)]
    refresh: bool,
    /// Remove all kernels and sources from the cache instead
    #[arg(long, conflicts_with_all = ["kernel", "debug", "refresh", "json"])]
    clean: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Command::Build(build) = &arguments.command;
    let progress = Quiet::for_stderr();
    if build.clean {
        let cache = Cache::open().map_err(Failure::environment)?;
        kernel::clean(&cache, &progress).map_err(failure)?;
        return Ok(Exit::Success as u8);
    }
    let flavour = if build.debug { Flavour::Debug } else { build.kernel };
    let request =
        KernelRequest { refresh: build.refresh, ..KernelRequest::from_environment(flavour) };
    let built = kernel::build(&request, &progress).map_err(failure)?;
    progress.done();
    let image = built.image();
    if build.json {
        output::json(&serde_json::json!({
            "flavour": built.flavour.name(),
            "release": built.release,
            "source": built.source,
            "image": image,
            "build_tree": built.build_tree(),
            "cached": built.cached,
        }))?;
    } else {
        let how = if built.cached { "from the cache" } else { "built just now" };
        say!("Linux {} ({}), {how}", built.release, built.source);
        output::print(&format!("{}\n", image.display()))?;
    }
    Ok(Exit::Success as u8)
}

fn flavour(text: &str) -> Result<Flavour, String> {
    let known = || Flavour::ALL.map(Flavour::name);
    Flavour::ALL
        .into_iter()
        .find(|flavour| flavour.name() == text)
        .ok_or_else(|| format!("there are {}", known().join(", ")))
}

fn failure(error: KernelError) -> Failure {
    Failure::environment(error)
}
