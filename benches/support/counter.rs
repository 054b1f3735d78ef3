//! The counter that a push reads, for benches that measure with it.

/// A reading of the counter; nanoseconds where the processor has none.
#[inline(always)]
pub fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction.
        #[expect(unsafe_code, reason = "a reading that costs less than the push")]
        unsafe {
            std::arch::x86_64::_rdtsc()
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// A reading that waits for what comes before it, and that what comes after it waits for.
#[inline(always)]
#[allow(dead_code, reason = "not every bench times single calls")]
pub fn fenced_counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction.
        #[expect(unsafe_code, reason = "single calls are to be told apart")]
        unsafe {
            std::arch::x86_64::_mm_lfence();
        }
        let now = counter();
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "single calls are to be told apart")]
        unsafe {
            std::arch::x86_64::_mm_lfence();
        }
        now
    }
    #[cfg(not(target_arch = "x86_64"))]
    counter()
}
