//! Writes manual pages and shell completions as a distribution lays them out below `share`:
//! `cargo run --example manual -- FOLDER`. `make install` and `make dist` do this.

use std::fs::{create_dir_all, rename};
use std::io;
use std::path::Path;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "usage: manual FOLDER"))?;
    write(Path::new(&folder))
}

fn write(share: &Path) -> io::Result<()> {
    let pages = share.join("man/man1");
    create_dir_all(&pages)?;
    // `help` repeats what is there, and would get pages of its own.
    clap_mangen::generate_to(peerdma::command().disable_help_subcommand(true), &pages)?;
    for (shell, folder, name) in [
        (Shell::Bash, "bash-completion/completions", "peerdma"),
        (Shell::Zsh, "zsh/site-functions", "_peerdma"),
        (Shell::Fish, "fish/vendor_completions.d", "peerdma.fish"),
    ] {
        let folder = share.join(folder);
        create_dir_all(&folder)?;
        let made = clap_complete::generate_to(shell, &mut peerdma::command(), "peerdma", &folder)?;
        rename(made, folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_for_users_has_a_page_and_is_completed() {
        let share = std::env::temp_dir().join(format!("peerdma-manual-{}", std::process::id()));
        write(&share).unwrap();
        let read = |path: &str| std::fs::read_to_string(share.join(path)).unwrap();
        let bash = read("bash-completion/completions/peerdma");
        let (zsh, fish) =
            (read("zsh/site-functions/_peerdma"), read("fish/vendor_completions.d/peerdma.fish"));
        assert!(read("man/man1/peerdma.1").contains("Exit codes:"), "the long help is not in it");
        let pages = std::fs::read_dir(share.join("man/man1")).unwrap().count();
        let mut commands = 0;
        for command in peerdma::command().get_subcommands().filter(|command| !command.is_hide_set())
        {
            let name = command.get_name();
            assert!(read(&format!("man/man1/peerdma-{name}.1")).contains("OPTIONS"), "{name}");
            for completions in [&bash, &zsh, &fish] {
                assert!(completions.contains(name), "{name}");
            }
            commands += 1 + command.get_subcommands().count();
        }
        assert_eq!(pages, commands + 1, "a page for each command, and one for all");
        std::fs::remove_dir_all(&share).unwrap();
    }
}
