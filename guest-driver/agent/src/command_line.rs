//! The agent as an ordinary program, for use at a guest's prompt.

use crate::init::hang;
use crate::vmm::{self, Expectation, PortWire, Vmm};
use crate::{cases, exit, files, ktap};
use guest_protocol::started;
use std::path::Path;

const HELP: &str = "\
First process and test program of a peerdma guest.

Usage:
  guest-agent list [GROUP|TEST]...    every test, or those, with the kind of its verdict
  guest-agent test [GROUP|TEST]...    run tests: all, groups, a kind (positive, negative,
                                      partner), or single ones
  guest-agent get                     list what the host shares (peerdma boot --share PATH)
  guest-agent get NAME[/PATH] [TARGET]
                                      fetch a file or folder of it, as it is there now
  guest-agent reload NAME.ko [PARAMETER=VALUE]...
                                      fetch a module, unload the one of its name, load the new one
  guest-agent put FILE|- [NAME]       bring a file, or standard input, into the host's folder for
                                      results (peerdma boot --results FOLDER)
  guest-agent stat                    the counters of the VMM
  guest-agent unplug PORT             pull what sits below a port (BUS:DEVICE.FUNCTION) out of
                                      its slot, without notice
  guest-agent plug PORT               plug it in again
  guest-agent traffic FUNCTION        bytes that a function has read and written, by target
  guest-agent delay FUNCTION TARGET DELAY
                                      keep posted writes of a function to TARGET (a function, or
                                      ram) under way: `pushed` (until a read of the same path,
                                      or a CPU at TARGET, pushes them), up to 1024 turns, or
                                      `off`
  guest-agent fence FUNCTION          say that a fence for a function's work has been seen
  guest-agent expect CLASS[:FUNCTION] [MIN [MAX]]
                                      findings of this class, about this function or any, must come
                                      before the command ends that the guest runs
  guest-agent allow CLASS[:FUNCTION]  they may come
  guest-agent exit [CODE]             end the guest at once, with this exit code (0 to 255)
  guest-agent help                    this text

As /init it sets the guest up and does what the VMM asks for. Tests need root, and most need the module peerdma
loaded. Every test runs under the VMM's checker: an unexpected finding fails it, a missing one too.
";

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Help,
    List(Vec<String>),
    Test(Vec<String>),
    /// What, and where to.
    Get(Option<String>, Option<String>),
    /// A module, and its parameters.
    Reload(String, String),
    /// A file, and what it is called outside.
    Put(String, Option<String>),
    Stat,
    Unplug(String),
    Plug(String),
    Traffic(String),
    Delay(String, String, String),
    Fence(String),
    /// As the guest protocol has it, `CLASS[:FUNCTION] MIN MAX`.
    Expect(String),
    Exit(u8),
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => Ok(Request::Help),
        ["list", names @ ..] => Ok(Request::List(owned(names))),
        ["test", names @ ..] => Ok(Request::Test(owned(names))),
        ["get"] => Ok(Request::Get(None, None)),
        ["get", name] => Ok(Request::Get(Some((*name).to_owned()), None)),
        ["get", name, target] => {
            Ok(Request::Get(Some((*name).to_owned()), Some((*target).to_owned())))
        }
        ["reload", name, parameters @ ..] => {
            Ok(Request::Reload((*name).to_owned(), parameters.join(" ")))
        }
        ["put", file] => Ok(Request::Put((*file).to_owned(), None)),
        ["put", file, name] => Ok(Request::Put((*file).to_owned(), Some((*name).to_owned()))),
        ["stat"] => Ok(Request::Stat),
        ["unplug", port] => Ok(Request::Unplug((*port).to_owned())),
        ["plug", port] => Ok(Request::Plug((*port).to_owned())),
        ["traffic", function] => Ok(Request::Traffic((*function).to_owned())),
        ["delay", function, target, delay] => {
            Ok(Request::Delay((*function).to_owned(), (*target).to_owned(), (*delay).to_owned()))
        }
        ["fence", function] => Ok(Request::Fence((*function).to_owned())),
        ["expect", words @ ..] => {
            let text = words.join(" ");
            match Expectation::parse(&text) {
                Ok(_) => Ok(Request::Expect(text)),
                Err(error) => Err(error.to_string()),
            }
        }
        ["allow", class] => match Expectation::parse(class) {
            Ok(expectation) => {
                Ok(Request::Expect(Expectation { min: 0, ..expectation }.to_string()))
            }
            Err(error) => Err(error.to_string()),
        },
        ["exit"] => Ok(Request::Exit(exit::SUCCESS)),
        ["exit", code] => code
            .parse()
            .map(Request::Exit)
            .map_err(|_| format!("{code:?} is not an exit code from 0 to 255")),
        [first, ..] => Err(format!(
            "{first:?} with these arguments means nothing here; `guest-agent help` lists what does"
        )),
    }
}

/// Does what the arguments (without the program's name) ask for; gives the exit status.
pub fn run(arguments: &[String]) -> u8 {
    let outcome = parse(arguments).map_err(|error| (exit::USAGE, error)).and_then(serve);
    outcome.unwrap_or_else(|(code, error)| {
        eprintln!("guest-agent: {error}");
        code
    })
}

fn serve(request: Request) -> Result<u8, (u8, String)> {
    let no_vmm = || {
        (
            exit::PROTOCOL,
            "the VMM does not answer: this machine is not a guest of peerdma, or you are not root"
                .into(),
        )
    };
    let broken = |error: crate::vmm::VmmError| (exit::PROTOCOL, error.to_string());
    match request {
        Request::Help => {
            print!("{HELP}");
            Ok(exit::SUCCESS)
        }
        Request::List(names) => {
            print!("{}", list(&selection(&names)?));
            Ok(exit::SUCCESS)
        }
        Request::Test(names) => {
            let selection = selection(&names)?;
            let mut vmm = vmm();
            let summary = cases::run(&selection, vmm.as_mut(), ktap::Output::Terminal, hang)
                .map_err(broken)?;
            println!(
                "# {} passed, {} failed, {} skipped",
                summary.passed, summary.failed, summary.skipped
            );
            Ok(summary.exit_code())
        }
        Request::Get(None, _) => {
            let mut vmm = vmm().ok_or_else(no_vmm)?;
            print!("{}", files::list(&mut vmm).map_err(files_failed)?);
            Ok(exit::SUCCESS)
        }
        Request::Get(Some(name), target) => {
            let target = target.as_deref().map(Path::new);
            let mut vmm = vmm().ok_or_else(no_vmm)?;
            print_lines(&files::fetch(&mut vmm, &name, target).map_err(files_failed)?);
            Ok(exit::SUCCESS)
        }
        Request::Reload(name, parameters) => {
            let mut vmm = vmm().ok_or_else(no_vmm)?;
            print_lines(&files::reload(&mut vmm, &name, &parameters).map_err(files_failed)?);
            Ok(exit::SUCCESS)
        }
        Request::Put(file, name) => {
            let mut vmm = vmm().ok_or_else(no_vmm)?;
            let line = files::put(&mut vmm, Path::new(&file), name.as_deref());
            println!("{}", line.map_err(files_failed)?);
            Ok(exit::SUCCESS)
        }
        Request::Stat => {
            let stat = vmm().ok_or_else(no_vmm)?.stat().map_err(broken)?;
            let text = serde_json::to_string_pretty(&stat);
            println!("{}", text.map_err(|error| (exit::PROTOCOL, error.to_string()))?);
            Ok(exit::SUCCESS)
        }
        Request::Unplug(port) => {
            vmm().ok_or_else(no_vmm)?.unplug(&port).map_err(broken)?;
            Ok(exit::SUCCESS)
        }
        Request::Plug(port) => {
            vmm().ok_or_else(no_vmm)?.plug(&port).map_err(broken)?;
            Ok(exit::SUCCESS)
        }
        Request::Traffic(function) => {
            let moved = vmm().ok_or_else(no_vmm)?.traffic(&function).map_err(broken)?;
            let vmm::Traffic { read, written } = moved.traffic;
            for (word, by_target) in [("read from", read), ("written to", written)] {
                for (target, bytes) in by_target {
                    println!("{bytes:12} bytes {word} {target}");
                }
            }
            Ok(exit::SUCCESS)
        }
        Request::Delay(function, target, delay) => {
            vmm().ok_or_else(no_vmm)?.delay(&function, &target, &delay).map_err(broken)?;
            Ok(exit::SUCCESS)
        }
        Request::Fence(function) => {
            vmm().ok_or_else(no_vmm)?.fence_seen(&function).map_err(broken)?;
            Ok(exit::SUCCESS)
        }
        Request::Expect(text) => {
            let expectation = Expectation::parse(&text);
            let expectation = expectation.map_err(|error| (exit::USAGE, error.to_string()))?;
            vmm().ok_or_else(no_vmm)?.expect(expectation).map_err(broken)?;
            Ok(exit::SUCCESS)
        }
        Request::Exit(code) => {
            vmm().ok_or_else(no_vmm)?.exit(code, None).map_err(broken)?;
            Err((exit::PROTOCOL, "the VMM did not end the guest".into()))
        }
    }
}

fn files_failed(error: files::FilesError) -> (u8, String) {
    (exit::TESTS_FAILED, error.to_string())
}

fn print_lines(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
}

fn selection(names: &[String]) -> Result<Vec<cases::Case>, (u8, String)> {
    cases::select(names).map_err(|error| (exit::USAGE, error.to_string()))
}

/// A line for each test: kind and full name.
fn list(cases: &[cases::Case]) -> String {
    cases.iter().map(|case| format!("{:9} {}\n", case.kind.name(), case.full_name())).collect()
}

/// The VMM, if this is a guest of peerdma. Looks at the kernel's command line first: on any other machine the port's
/// number may belong to a device that does not expect our text.
fn vmm() -> Option<Vmm> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    if ![started::BY_TEST, started::BY_BOOT].iter().any(|word| started::is_started(&line, word)) {
        return None;
    }
    let mut vmm = Vmm::new(Box::new(PortWire::open().ok()?));
    vmm.stat().is_ok().then_some(vmm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn requests_are_understood() {
        assert_eq!(parsed(""), Ok(Request::Help));
        assert_eq!(parsed("test"), Ok(Request::Test(Vec::new())));
        assert_eq!(
            parsed("test copy faults.x"),
            Ok(Request::Test(vec!["copy".into(), "faults.x".into()]))
        );
        assert_eq!(parsed("list copy"), Ok(Request::List(vec!["copy".into()])));
        assert_eq!(parsed("get"), Ok(Request::Get(None, None)));
        assert_eq!(parsed("get a/b /c"), Ok(Request::Get(Some("a/b".into()), Some("/c".into()))));
        assert_eq!(parsed("reload a.ko x=1 y"), Ok(Request::Reload("a.ko".into(), "x=1 y".into())));
        assert_eq!(parsed("put - log"), Ok(Request::Put("-".into(), Some("log".into()))));
        assert!(
            parsed("reload").is_err() && parsed("put").is_err() && parsed("get a b c").is_err()
        );
        assert_eq!(parsed("exit 7"), Ok(Request::Exit(7)));
        assert!(parsed("exit 256").is_err());
        assert_eq!(parsed("unplug 00:04.0"), Ok(Request::Unplug("00:04.0".into())));
        assert!(parsed("plug").is_err());
        assert_eq!(
            parsed("delay 02:00.0 ram off"),
            Ok(Request::Delay("02:00.0".into(), "ram".into(), "off".into()))
        );
        assert!(parsed("delay 02:00.0 off").is_err());
        assert_eq!(
            parsed("expect iommu.stale:peer0"),
            Ok(Request::Expect("iommu.stale:peer0".into()))
        );
        assert_eq!(parsed("expect a.b 2 3"), Ok(Request::Expect("a.b 2 3".into())));
        assert_eq!(parsed("allow a.b"), Ok(Request::Expect("a.b 0".into())));
        for wrong in ["expect", "expect a.b x", "expect a.b 3 2", "allow", "allow a.b 1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert!(parsed("dance").unwrap_err().contains("help"));
    }

    #[test]
    fn an_unknown_test_is_a_usage_error() {
        assert_eq!(run(&["test".into(), "nonsense".into()]), exit::USAGE);
        assert_eq!(run(&["list".into(), "nonsense".into()]), exit::USAGE);
        assert_eq!(run(&["help".into()]), exit::SUCCESS);
        assert_eq!(run(&["list".into()]), exit::SUCCESS);
    }
}
