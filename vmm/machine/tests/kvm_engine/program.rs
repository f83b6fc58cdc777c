//! Guest programs, assembled by the compiler.

/// A program, behind its length in bytes.
pub(crate) type Code = unsafe extern "C" fn();

/// Copies a program out of our own text.
pub(crate) fn bytes(code: Code) -> Vec<u8> {
    let start = code as *const u64;
    // SAFETY: `program!` puts the length of what follows in front; text is readable and lives for ever.
    let code = unsafe {
        let length = usize::try_from(start.read_unaligned()).unwrap();
        std::slice::from_raw_parts(start.add(1).cast::<u8>(), length)
    };
    code.to_vec()
}

/// Assembles a program that starts in long mode at CPL 0 with a stack.
///
/// A check that fails jumps to `91f`; the number of the check, 1 to 9, is in `r15d` by then. Running off the end is
/// success. Either way the program says `exit NUMBER` at the protocol port.
macro_rules! program {
    ($($line:expr),+ $(,)?) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn code() {
            std::arch::naked_asm!(
                ".quad 99f - 90f",
                "90:",
                $($line,)+
                "xor r15d, r15d",
                "91:",
                "lea rsi, [rip + 98f]",
                "add [rsi + 5], r15b",
                "mov ecx, 7",
                "mov edx, 0x0d10",
                "cld",
                "rep outsb",
                "97:",
                "hlt",
                "jmp 97b",
                "98:",
                ".ascii \"exit 0\\n\"",
                "99:",
            )
        }
        $crate::program::bytes(code)
    }};
}
pub(crate) use program;
