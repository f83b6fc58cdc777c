//! The probe's guest programs, assembled by the compiler.
//!
//! Position independent; entered in long mode at CPL 0 with a stack and without an interrupt descriptor table. Each
//! says `exit 0` at the protocol port when the instruction did what it should and `exit 1` when not.

use std::arch::naked_asm;

/// A program, behind its length in bytes.
type Code = unsafe extern "C" fn();

/// Copies a program out of our own text.
fn bytes(code: Code) -> Vec<u8> {
    let start = code as *const u64;
    // SAFETY: `program!` puts the length of what follows in front; text is readable and lives for ever.
    let code = unsafe {
        let length = usize::try_from(start.read_unaligned()).unwrap_or(0);
        std::slice::from_raw_parts(start.add(1).cast::<u8>(), length)
    };
    code.to_vec()
}

/// Defines a program from instructions that leave zero in `eax` for success.
macro_rules! program {
    ($(#[$doc:meta])* $name:ident: $($line:literal),+ $(,)?) => {
        $(#[$doc])*
        pub(crate) fn $name() -> Vec<u8> {
            #[unsafe(naked)]
            unsafe extern "C" fn code() {
                naked_asm!(
                    ".quad 29f - 20f",
                    "20:",
                    $($line,)+
                    // "exit N" and a line feed to port 0x0d10.
                    "lea rsi, [rip + 28f]",
                    "add [rsi + 5], al",
                    "mov ecx, 7",
                    "mov edx, 0x0d10",
                    "cld",
                    "rep outsb",
                    "27:",
                    "hlt",
                    "jmp 27b",
                    "28:",
                    ".ascii \"exit 0\\n\"",
                    "29:",
                )
            }
            bytes(code)
        }
    };
}

pub(super) mod user;

program! {
    /// Integer code, memory, a branch.
    plain:
        "mov qword ptr [rsp - 8], 21",
        "mov rcx, [rsp - 8]",
        "add rcx, rcx",
        "xor eax, eax",
        "cmp rcx, 42",
        "setne al",
}

program! {
    /// Exchanges 16 bytes that are as expected.
    cmpxchg16b:
        "and rsp, -16",
        "push 2",
        "push 1",
        "mov eax, 1",
        "mov edx, 2",
        "mov ebx, 3",
        "mov ecx, 4",
        "lock cmpxchg16b [rsp]",
        "setnz al",
        "cmp qword ptr [rsp], 3",
        "setne cl",
        "or al, cl",
        "movzx eax, al",
}

program! {
    /// Switches on all state that there is, for which CPUID must then say how much room it takes; saves x87 and SSE
    /// state, changes `xmm0` in the image, restores it.
    xsave:
        // CR4: OSFXSR, OSXMMEXCPT, OSXSAVE.
        "mov rax, cr4",
        "or rax, 0x40600",
        "mov cr4, rax",
        "mov eax, 0xd",
        "xor ecx, ecx",
        "cpuid",
        "mov r8d, eax",
        "xor ecx, ecx",
        "xsetbv",
        // The end of the last component (leaf 0xD: EBX its start, EAX its size) against what EBX of subleaf 0 says.
        "mov r9d, 576",
        "mov r10d, 2",
        "24:",
        "bt r8d, r10d",
        "jnc 25f",
        "mov eax, 0xd",
        "mov ecx, r10d",
        "cpuid",
        "add eax, ebx",
        "cmp eax, r9d",
        "cmova r9d, eax",
        "25:",
        "inc r10d",
        "cmp r10d, 32",
        "jb 24b",
        "mov eax, 0xd",
        "xor ecx, ecx",
        "cpuid",
        "xor r12d, r12d",
        "cmp ebx, r9d",
        "setne r12b",
        "lea rdi, [rsp - 0x1000]",
        "and rdi, -64",
        // The header behind the legacy region must be zero.
        "mov rsi, rdi",
        "xor eax, eax",
        "mov ecx, 1024 / 8",
        "cld",
        "rep stosq",
        "mov rdi, rsi",
        "mov eax, 3",
        "xor edx, edx",
        "xsave [rdi]",
        // XMM0 lies at 160; mark SSE state as there.
        "mov dword ptr [rdi + 160], 0x5a5a5a5a",
        "or dword ptr [rdi + 512], 2",
        "mov eax, 3",
        "xor edx, edx",
        "xrstor [rdi]",
        "movups [rdi + 1024], xmm0",
        "xor eax, eax",
        "cmp dword ptr [rdi + 1024], 0x5a5a5a5a",
        "setne al",
        "or eax, r12d",
}

program! {
    /// Takes a breakpoint exception and returns from it.
    int3:
        // An interrupt gate for vector 3 in a table below the stack.
        "lea rdi, [rsp - 0x2000]",
        "lea rax, [rip + 25f]",
        "mov [rdi + 3 * 16], ax",
        "mov word ptr [rdi + 3 * 16 + 2], 0x10",
        "mov word ptr [rdi + 3 * 16 + 4], 0x8e00",
        "shr rax, 16",
        "mov [rdi + 3 * 16 + 6], ax",
        "shr rax, 16",
        "mov [rdi + 3 * 16 + 8], eax",
        "mov dword ptr [rdi + 3 * 16 + 12], 0",
        "push rdi",
        "push 0",
        "mov word ptr [rsp + 6], 4 * 16 - 1",
        "lidt [rsp + 6]",
        "mov eax, 1",
        "int3",
        "jmp 26f",
        "25:",
        "xor eax, eax",
        "iretq",
        "26:",
}

program! {
    /// `andn` is BMI1 and comes in a VEX encoding.
    andn:
        "mov ecx, 0xff00ff00",
        "mov edx, 0x12345678",
        "andn ebx, ecx, edx",
        "xor eax, eax",
        "cmp ebx, 0x00340078",
        "setne al",
}
