//! A faulting instruction in words.

/// The kind of a 64-bit mode instruction, with its article; it need not be whole.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    let mut bytes = bytes.iter().copied().skip_while(|byte| is_prefix(*byte));
    match (bytes.next(), bytes.next()) {
        // VEX and EVEX (Intel SDM vol. 2, 2.3.5 and 2.7.1).
        (Some(0xc4 | 0xc5), _) => "a vector instruction (AVX)",
        (Some(0x62), _) => "a vector instruction (AVX-512)",
        (Some(0x0f), Some(second)) if is_vector(second) => "a vector instruction (SSE)",
        (Some(0xd8..=0xdf), _) => "a floating-point instruction",
        _ => "an instruction",
    }
}

/// Legacy and REX prefixes (2.1.1, 2.2.1).
fn is_prefix(byte: u8) -> bool {
    matches!(
        byte,
        0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
    )
}

/// The second opcode byte of SSE and MMX (appendix A, table A-3), and the escapes to their tables.
fn is_vector(second: u8) -> bool {
    matches!(
        second,
        0x10..=0x17 | 0x28..=0x2f | 0x38 | 0x3a | 0x50..=0x7f | 0xc2 | 0xc4..=0xc6 | 0xd0..=0xff
    )
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn vector_instructions_are_distinguished_from_others() {
        let avx = "a vector instruction (AVX)";
        let sse = "a vector instruction (SSE)";
        let cases: [(&[u8], &str); 14] = [
            // vmovdqu ymm0, [rsi]; with a REX-like payload; vmovdqu32 zmm0, [rsi]
            (&[0xc5, 0xfe, 0x6f, 0x06], avx),
            (&[0xc4, 0xc1, 0x7e, 0x6f, 0x00], avx),
            (&[0x62, 0xf1, 0x7e, 0x48, 0x6f, 0x06], "a vector instruction (AVX-512)"),
            // movdqu xmm0, [rsi]; movups xmm8, [r8]; pcmpeqb xmm0, [rsi]; pshufb xmm0, [rsi]; movdqu xmm0, gs:[rsi]
            (&[0xf3, 0x0f, 0x6f, 0x06], sse),
            (&[0x45, 0x0f, 0x10, 0x00], sse),
            (&[0x66, 0x0f, 0x74, 0x06], sse),
            (&[0x66, 0x0f, 0x38, 0x00, 0x06], sse),
            (&[0x65, 0xf3, 0x0f, 0x6f, 0x06], sse),
            // fld qword ptr [rsi]
            (&[0xdd, 0x06], "a floating-point instruction"),
            // mov eax, [rsi]; lock cmpxchg16b [rsi]; movnti [rsi], rax; nothing; prefixes only
            (&[0x8b, 0x06], "an instruction"),
            (&[0xf0, 0x48, 0x0f, 0xc7, 0x0e], "an instruction"),
            (&[0x48, 0x0f, 0xc3, 0x06], "an instruction"),
            (&[], "an instruction"),
            (&[0x66, 0xf0], "an instruction"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(kind(bytes), expected, "{bytes:02x?}");
        }
    }
}
