//! The I/O ports: protocol port, serial port, power and reset.

use libtest_mimic::Trial;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use peerdma_machine::{Backends, EmptyBus, ProtocolHandler, Reply, RunEnd};

use crate::harness::{
    FakeBus, LIMIT, Ran, expect_success, machine, platform, quiet, run, with_port,
};
use crate::program::program;

/// Answers `ping` with `pong`.
#[derive(Clone, Default)]
struct Pong(Arc<Mutex<Vec<String>>>);

impl ProtocolHandler for Pong {
    fn line(&mut self, line: &str) -> Reply {
        self.0.lock().unwrap().push(line.to_owned());
        match line.strip_prefix("exit ") {
            Some(code) => Reply::Exit(code.parse().unwrap()),
            None => {
                Reply::Line(if line == "ping" { "pong".into() } else { format!("fail {line}") })
            }
        }
    }
}

fn a_line_is_asked_and_answered() -> Ran {
    let port = Pong::default();
    let code = program!(
        "mov edx, 0x0d10",
        // Nothing asked, nothing said.
        "mov r15d, 1",
        "in al, dx",
        "cmp al, 0xFF",
        "jne 91f",
        // By a string instruction, answer byte by byte.
        "cld",
        "lea rsi, [rip + 30f]",
        "mov ecx, 5",
        "rep outsb",
        "lea rsi, [rip + 31f]",
        "mov ecx, 5",
        "20:",
        "mov r15d, 2",
        "in al, dx",
        "cmp al, [rsi]",
        "jne 91f",
        "inc rsi",
        "loop 20b",
        "mov r15d, 3",
        "in al, dx",
        "cmp al, 0xFF",
        "jne 91f",
        // Byte by byte, answer by a string instruction.
        "lea rsi, [rip + 30f]",
        "mov ecx, 5",
        "21:",
        "lodsb",
        "out dx, al",
        "loop 21b",
        "lea rdi, [rip + 32f]",
        "mov ecx, 5",
        "rep insb",
        "mov r15d, 4",
        "mov eax, [rip + 32f]",
        "cmp eax, [rip + 31f]",
        "jne 91f",
        "jmp 33f",
        "30: .ascii \"ping\\n\"",
        "31: .ascii \"pong\\n\"",
        "32: .quad 0",
        "33:",
    );
    expect_success(&run(code, Arc::new(EmptyBus), with_port(port.clone()))?);
    assert_eq!(*port.0.lock().unwrap(), ["ping", "ping", "exit 0"]);
    Ok(())
}

fn a_call_takes_the_line_and_leaves_the_answer_in_memory() -> Ran {
    let port = Pong::default();
    let code = program!(
        "lea rdi, [rip + 30f]",
        "mov ecx, 8",
        "mov edx, 0x0d14",
        // Only four bytes at once are a call.
        "mov r15d, 1",
        "mov eax, 4",
        "out dx, al",
        "out dx, ax",
        "cmp dword ptr [rdi], -1",
        "jne 91f",
        "mov r15d, 2",
        "out dx, eax",
        "cmp dword ptr [rdi], 4",
        "jne 91f",
        "mov ebx, [rip + 31f]",
        "cmp ebx, [rdi + 4]",
        "jne 91f",
        // What follows the answer is as it was, and so are the registers.
        "mov r15d, 3",
        "cmp dword ptr [rdi + 8], 0x12345678",
        "jne 91f",
        "cmp ecx, 8",
        "jne 91f",
        "cmp eax, 4",
        "jne 91f",
        // A number, a line and an answer on two pages each.
        "mov r15d, 4",
        "mov edi, 0x300ffe",
        "mov dword ptr [rdi], -1",
        "mov dword ptr [rdi + 4], 0x676e6970",
        "out dx, eax",
        "cmp dword ptr [rdi], 4",
        "jne 91f",
        "cmp ebx, [rdi + 4]",
        "jne 91f",
        // Where nothing is mapped the listener is not called, and the guest goes on.
        "mov rdi, 1 << 40",
        "out dx, eax",
        "mov rdi, -2",
        "out dx, eax",
        // Nor where there is no RAM.
        "mov edi, 0xC0000000",
        "out dx, eax",
        "jmp 32f",
        "30: .long -1",
        ".ascii \"ping\"",
        ".long 0x12345678",
        "31: .ascii \"pong\"",
        "32:",
    );
    expect_success(&run(code, Arc::new(EmptyBus), with_port(port.clone()))?);
    assert_eq!(*port.0.lock().unwrap(), ["ping", "ping", "exit 0"]);
    Ok(())
}

/// A buffer on a page that belongs to CPL 3, on a processor whose SMAP keeps CPL 0 from it: as a Linux program calls.
fn a_call_reaches_a_programs_memory_although_the_kernel_itself_may_not() -> Ran {
    let port = Pong::default();
    let code = program!(
        // Nothing to test where the processor has no SMAP; `r14d` is 1 where it has.
        "xor r14d, r14d",
        "xor eax, eax",
        "cpuid",
        "cmp eax, 7",
        "jb 20f",
        "mov eax, 7",
        "xor ecx, ecx",
        "cpuid",
        "shr ebx, 20",
        "and ebx, 1",
        "mov r14d, ebx",
        "20:",
        // The page of 2 MiB at 4 MiB is for CPL 3, and so is the way there. Its own entry is the third.
        "or qword ptr [0x9000], 4",
        "or qword ptr [0xa000], 4",
        "or qword ptr [0xb010], 4",
        "mov rax, cr3",
        "mov cr3, rax",
        "mov edi, 0x400000",
        "mov dword ptr [rdi], -1",
        "mov dword ptr [rdi + 4], 0x676e6970",
        // CR4.SMAP, as far as there is one.
        "mov ebx, r14d",
        "shl ebx, 21",
        "mov rax, cr4",
        "or rax, rbx",
        "mov cr4, rax",
        "mov ecx, 8",
        "mov edx, 0x0d14",
        "mov eax, 4",
        "out dx, eax",
        "mov rax, cr4",
        "xor rax, rbx",
        "mov cr4, rax",
        "mov r15d, 1",
        "cmp dword ptr [rdi], 4",
        "jne 91f",
        "mov r15d, 2",
        "cmp dword ptr [rdi + 4], 0x676e6f70",
        "jne 91f",
    );
    expect_success(&run(code, Arc::new(EmptyBus), with_port(port.clone()))?);
    assert_eq!(*port.0.lock().unwrap(), ["ping", "exit 0"]);
    Ok(())
}

fn power_and_reset_registers_end_the_run() -> Ran {
    let power_off = program!("mov edx, 0x600", "mov al, (5 << 2) | (1 << 5)", "out dx, al");
    let reset = program!("mov edx, 0xCF9", "mov al, 0x0E", "out dx, al");
    let keyboard_reset = program!("mov al, 0xFE", "out 0x64, al");
    // Sleep states other than S5, and other values of the reset register, do nothing.
    let neither = program!(
        "mov edx, 0x600",
        "mov al, (3 << 2) | (1 << 5)",
        "out dx, al",
        "mov al, 2",
        "mov dx, 0xCF9",
        "out dx, al"
    );
    type Check = fn(&RunEnd) -> bool;
    let cases: [(_, Check); 4] = [
        (power_off, |outcome| matches!(outcome, RunEnd::PowerOff)),
        (reset, |outcome| matches!(outcome, RunEnd::Reset)),
        (keyboard_reset, |outcome| matches!(outcome, RunEnd::Reset)),
        (neither, |outcome| matches!(outcome, RunEnd::Exit(0))),
    ];
    for (code, check) in cases {
        let outcome = run(code, Arc::new(EmptyBus), quiet())?;
        assert!(check(&outcome), "{outcome}");
    }
    Ok(())
}

/// Collects what the console says.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Echoes what comes in at COM1, woken by its interrupt, until a `q`.
fn the_serial_port_interrupts_and_echoes() -> Ran {
    let platform = platform(1)?;
    let code = program!(
        // Vector 0x44 of a table at 0x30_0000: an interrupt gate to 50f.
        "mov ebx, 0x300000",
        "lea rax, [rip + 50f]",
        "mov [rbx + 0x440], ax",
        "mov word ptr [rbx + 0x442], 0x10",
        "mov word ptr [rbx + 0x444], 0x8e00",
        "shr rax, 16",
        "mov [rbx + 0x446], ax",
        "shr rax, 16",
        "mov [rbx + 0x448], eax",
        "push rbx",
        "push 0",
        "mov word ptr [rsp + 6], 0x44f",
        "lidt [rsp + 6]",
        // Local APIC on; I/O APIC pin 4, edge, vector 0x44, to APIC 0.
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xF0], 0x1FF",
        "mov ebx, 0xFEC00000",
        "mov dword ptr [rbx], 0x19",
        "mov dword ptr [rbx + 0x10], 0",
        "mov dword ptr [rbx], 0x18",
        "mov dword ptr [rbx + 0x10], 0x44",
        // Interrupt when data is there.
        "mov edx, 0x3F9",
        "mov al, 1",
        "out dx, al",
        "20:",
        "sti",
        "hlt",
        "cli",
        "cmp bpl, 'q'",
        "jne 20b",
        "jmp 60f",
        "50:",
        // As long as there is data: echo.
        "51:",
        "mov edx, 0x3FD",
        "in al, dx",
        "test al, 1",
        "jz 52f",
        "mov edx, 0x3F8",
        "in al, dx",
        "mov bpl, al",
        "out dx, al",
        "jmp 51b",
        "52:",
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xB0], 0",
        "iretq",
        "60:",
    );
    let screen = Screen::default();
    let backends = Backends { console: Box::new(screen.clone()), ..quiet() };
    let machine = machine(platform, code, FakeBus::new(), backends);
    let input = machine.console_input();
    let typist = std::thread::spawn(move || {
        for byte in b"hello, " {
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert_eq!(input.send(&[*byte]), 1);
        }
        assert_eq!(input.send(b"worldq"), 6);
    });
    expect_success(&machine.run(Some(LIMIT)).unwrap());
    typist.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&screen.0.lock().unwrap()), "hello, worldq");
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_line_is_asked_and_answered,
        a_call_takes_the_line_and_leaves_the_answer_in_memory,
        a_call_reaches_a_programs_memory_although_the_kernel_itself_may_not,
        power_and_reset_registers_end_the_run,
        the_serial_port_interrupts_and_echoes,
    ]
}
