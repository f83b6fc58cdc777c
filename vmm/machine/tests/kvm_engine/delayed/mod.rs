//! A memory BAR that leaves the guest's direct map while posted writes to it are delayed, and comes back: with the
//! devices behind it, and vCPUs that use it meanwhile.

mod rig;
pub(crate) mod running;

use libtest_mimic::Trial;
use peerdma_machine::{FaultKind, ProtocolHandler, Reply, RunEnd};
use rig::{BAR_AT, Rig};

use crate::harness::{LIMIT, Ran, Skipped, expect_success, platform, with_port};
use crate::program::program;

/// Does to the devices what the guest asks for, one letter a line.
struct Orders(Rig);

impl ProtocolHandler for Orders {
    fn line(&mut self, line: &str) -> Reply {
        let rig = &self.0;
        match line.split(' ').next() {
            Some("a") => rig.delay("pushed"),
            Some("o") => rig.delay("off"),
            Some("p") => rig.post(0x5a5a_5a5a_5a5a_5a5a, 64),
            Some("exit") => return Reply::Exit(line[5..].parse().unwrap()),
            _ => return Reply::fail(line),
        }
        Reply::ok()
    }
}

/// Says one letter at the protocol port.
macro_rules! say {
    ($letter:literal) => {
        concat!("mov edx, 0xd10\nmov al, '", $letter, "'\nout dx, al\nmov al, 10\nout dx, al")
    };
}

/// Runs a program with the devices; its outcome, and what it accessed of the BAR through the runtime: reads and writes.
fn run(code: Vec<u8>) -> Result<(RunEnd, Rig), Skipped> {
    let platform = platform(1)?;
    let rig = Rig::new(&platform);
    let machine = rig.machine(platform, code, with_port(Orders(rig.clone())));
    Ok((machine.run(Some(LIMIT)).unwrap(), rig))
}

fn a_bar_without_a_delay_is_reached_without_an_exit() -> Ran {
    let code = program!(
        "mov rdi, [0x7300]",
        "mov ecx, 1000",
        "20:",
        "mov [rdi], ecx",
        "mov r15d, 1",
        "cmp [rdi], ecx",
        "jne 91f",
        "dec ecx",
        "jnz 20b",
        // Data that is not delayed, and a delay that is over.
        say!("p"),
        say!("a"),
        say!("o"),
        "mov r15d, 2",
        "cmp dword ptr [rdi], 0x5a5a5a5a",
        "jne 91f",
        "mov dword ptr [rdi + 4], 0",
    );
    let (outcome, rig) = run(code)?;
    expect_success(&outcome);
    assert_eq!(rig.accesses(), (0, 0));
    Ok(())
}

fn accesses_of_a_cpu_push_and_the_bar_comes_back() -> Ran {
    let code = program!(
        "cld",
        "mov rdi, [0x7300]",
        say!("a"),
        say!("p"),
        // A read of the last bytes: all of it is there, for the string instruction too.
        "mov r15d, 1",
        "movabs rax, 0x5a5a5a5a5a5a5a5a",
        "cmp [rdi + 56], rax",
        "jne 91f",
        "mov rsi, rdi",
        "mov ebx, 0x6000",
        "mov rdi, rbx",
        "mov ecx, 8",
        "rep movsq",
        "mov r15d, 2",
        "cmp [rbx], rax",
        "jne 91f",
        "cmp [rbx + 56], rax",
        "jne 91f",
        // And the other way round, by bytes, behind what is under way by then.
        say!("p"),
        "mov rdi, [0x7300]",
        "mov dword ptr [rbx], 0x04030201",
        "mov rsi, rbx",
        "mov ecx, 4",
        "rep movsb",
        "mov rdi, [0x7300]",
        "mov r15d, 3",
        "cmp dword ptr [rdi], 0x04030201",
        "jne 91f",
        "cmp dword ptr [rdi + 4], 0x5a5a5a5a",
        "jne 91f",
        say!("o"),
        // From here on without the runtime.
        "mov r15d, 4",
        "cmp dword ptr [rdi], 0x04030201",
        "jne 91f",
        "mov dword ptr [rdi], 0x11111111",
        "cmp dword ptr [rdi], 0x11111111",
        "jne 91f",
    );
    let (outcome, rig) = run(code)?;
    expect_success(&outcome);
    // One read, eight of a string, two more; four bytes written.
    assert_eq!(rig.accesses(), (11, 4));
    assert_eq!(rig.read(0), 0x5a5a_5a5a_1111_1111);
    assert_eq!(rig.findings(), Vec::<String>::new());
    Ok(())
}

fn data_that_no_cpu_has_pushed_is_found_when_the_delay_ends() -> Ran {
    let code = program!(say!("a"), say!("p"), say!("o"), "mov rdi, [0x7300]", "mov eax, [rdi]");
    let (outcome, rig) = run(code)?;
    expect_success(&outcome);
    assert_eq!(rig.accesses(), (0, 0));
    assert_eq!(rig.findings(), ["order.record-before-data"]);
    Ok(())
}

fn a_vector_load_that_kvm_does_not_emulate_is_named() -> Ran {
    // A KVM that has an AVX load gives the data; any other names it. A zero would be check 1.
    let code = program!(
        "mov rdi, [0x7300]",
        say!("a"),
        say!("p"),
        // vmovdqu ymm0, [rdi] and vptest ymm0, ymm0
        ".byte 0xc5, 0xfe, 0x6f, 0x07",
        ".byte 0xc4, 0xe2, 0x7d, 0x17, 0xc0",
        "mov r15d, 1",
        "jz 91f",
    );
    let (outcome, _) = run(code)?;
    match &outcome {
        RunEnd::Exit(0) => {}
        RunEnd::Fault(fault) => {
            let FaultKind::Internal { suberror: 1, instruction, withheld, .. } = &fault.kind else {
                panic!("{outcome}")
            };
            assert!(instruction.starts_with(&[0xc5, 0xfe, 0x6f, 0x07]), "{outcome}");
            assert_eq!(withheld.len(), 1);
            let text = outcome.to_string();
            for part in [
                "instruction bytes c5 fe 6f 07",
                "a vector instruction (AVX)",
                "BAR 2 of peer1 (02:00.0)",
                "readq()",
            ] {
                assert!(text.contains(part), "{part} is missing: {text}");
            }
        }
        _ => panic!("{outcome}"),
    }
    assert_eq!(BAR_AT, 0x7300, "where the programs look for it");
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_bar_without_a_delay_is_reached_without_an_exit,
        accesses_of_a_cpu_push_and_the_bar_comes_back,
        data_that_no_cpu_has_pushed_is_found_when_the_delay_ends,
        a_vector_load_that_kvm_does_not_emulate_is_named,
    ]
}
