//! Programs at CPL 3, which may use the protocol's ports and no others, as the guest's agent has them from `ioperm()`.
//!
//! Where the processor has SMEP and SMAP they are on: the program's pages are no business of CPL 0, and whatever serves
//! the program must reach them all the same.

use std::arch::naked_asm;

use super::bytes;

/// Defines a program from instructions at CPL 3 that leave zero in `eax` for success. `r14` is the start of a page of
/// its own.
macro_rules! user_program {
    ($(#[$doc:meta])* $name:ident: $($line:literal),+ $(,)?) => {
        program! {
            $(#[$doc])*
            $name:
            // The lowest 2 MiB once more at 16 MiB, for CPL 3.
            "or qword ptr [0x9000], 4",
            "or qword ptr [0xa000], 4",
            "mov qword ptr [0xb040], 0x87",
            // A task state segment at 0x181000 whose bitmap lets ports 0xd10 to 0xd17 through: a zero byte among ones.
            "mov edi, 0x181068",
            "mov eax, 0xff",
            "mov ecx, 0x1a4",
            "cld",
            "rep stosb",
            "mov byte ptr [0x18120a], 0",
            "mov word ptr [0x181066], 0x68",
            // Descriptors at 0x180000: code for CPL 3, the two for CPL 0 in their places, data for CPL 3, the segment.
            "mov edi, 0x180000",
            "mov rax, 0x00affb000000ffff",
            "mov [rdi + 0x08], rax",
            "mov rax, 0x00af9b000000ffff",
            "mov [rdi + 0x10], rax",
            "mov rax, 0x00cf93000000ffff",
            "mov [rdi + 0x18], rax",
            "mov rax, 0x00cff3000000ffff",
            "mov [rdi + 0x20], rax",
            "mov rax, 0x000089181000020b",
            "mov [rdi + 0x28], rax",
            "push rdi",
            "push 0",
            "mov word ptr [rsp + 6], 0x37",
            "lgdt [rsp + 6]",
            "mov eax, 0x28",
            "ltr ax",
            // CR4: SMEP and SMAP, as CPUID has them (leaf 7, EBX bits 7 and 20).
            "xor eax, eax",
            "cpuid",
            "cmp eax, 7",
            "jb 21f",
            "mov eax, 7",
            "xor ecx, ecx",
            "cpuid",
            "mov rax, cr4",
            "mov ecx, ebx",
            "shr ecx, 7",
            "and ecx, 1",
            "shl ecx, 20",
            "or rax, rcx",
            "shr ebx, 20",
            "and ebx, 1",
            "shl ebx, 21",
            "or rax, rbx",
            "mov cr4, rax",
            "21:",
            "mov rax, cr3",
            "mov cr3, rax",
            // To CPL 3, IOPL 0, at the other addresses.
            "push 0x23",
            "push 0x11f0000",
            "push 2",
            "push 0x0b",
            "lea rax, [rip + 22f]",
            "add rax, 0x1000000",
            "push rax",
            "iretq",
            "22:",
            "mov r14d, 0x1190000",
            $($line,)+
        }
    };
}

user_program! {
    /// Asks at the protocol port by a string instruction, and reads the answer in pieces of each size.
    ports:
        "lea rsi, [rip + 23f]",
        "mov ecx, 5",
        "mov edx, 0x0d10",
        "rep outsb",
        "mov byte ptr [r14 + 7], 10",
        "mov al, [r14 + 7]",
        "out dx, al",
        "mov rdi, r14",
        "in al, dx",
        "stosb",
        "in ax, dx",
        "stosw",
        "in eax, dx",
        "stosd",
        "mov ecx, 5",
        "rep insb",
        "mov ecx, 1",
        "mov rax, [r14]",
        "cmp rax, [rip + 24f]",
        "jne 25f",
        "mov eax, [r14 + 8]",
        "cmp eax, [rip + 24f + 8]",
        "jne 25f",
        "xor ecx, ecx",
        "25:",
        "mov eax, ecx",
        "jmp 26f",
        "23: .ascii \"hello\"",
        "24: .ascii \"fail this ma\"",
        "26:",
}

user_program! {
    /// A line and its answer in memory of the program's, by one OUT.
    protocol_call:
        "mov rdi, r14",
        "mov dword ptr [rdi], -1",
        "mov dword ptr [rdi + 4], 0x6c6c6568",
        "mov ecx, 100",
        "mov edx, 0x0d14",
        "mov eax, 4",
        "out dx, eax",
        "mov ecx, 1",
        "cmp dword ptr [rdi], 100",
        "ja 23f",
        "cmp dword ptr [rdi + 4], 0x6c696166",
        "jne 23f",
        "xor ecx, ecx",
        "23:",
        "mov eax, ecx",
}

#[cfg(test)]
mod tests {
    use crate::protocol_port::{ExitOnly, ProtocolHandler, Reply};

    #[test]
    fn ports_expects_the_beginning_of_what_the_protocol_port_answers() {
        let Reply::Line(answer) = ExitOnly.line("hello") else {
            panic!("no line in answer");
        };
        let expected = answer.as_bytes().first_chunk::<12>().expect("an answer of 12 bytes");
        let code = super::ports();
        assert!(
            code.windows(12).any(|bytes| bytes == expected),
            "{answer:?} is not in the payload"
        );
    }
}
