//! Asking for cache lines before they are touched.
#![expect(unsafe_code, reason = "instructions that have no safe name")]

/// Asks for the cache line at `offset` of `bytes`, to be read. An offset behind the end asks for
/// something else: it costs as much, and does nothing.
#[inline(always)]
pub(crate) fn read(bytes: &[u8], offset: usize) {
    let place = bytes.as_ptr().wrapping_add(offset);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it reads nothing, and any address will do.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _: *const u8 = place;
}

/// Asks for the cache line at `place`, to be written. Any address will do.
#[inline(always)]
pub(crate) fn write(place: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it changes nothing, and any address will do. Processors that do not know the
    // instruction do nothing.
    unsafe {
        std::arch::asm!(
            "prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _: *const u8 = place;
}
