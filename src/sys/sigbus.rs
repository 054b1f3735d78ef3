//! The guard against SIGBUS: a page of ours that its file can no longer back (somebody cut the
//! file, the disk cannot be read or written) is replaced by another one, and that is counted: by an
//! empty one, or by one that keeps what the file still has (`stand_in`).
//!
//! Installed once per process, at the first guarded range, and only when a session asks for it.
//! A SIGBUS anywhere else reaches whoever handled the signal before, as if we were not there.
//!
//! The handler runs on the thread that touched the page, between any two of its instructions. It
//! uses atomics, `mmap`, `mremap`, `pread`, `sigaction`, `raise` and the mask of the thread: no
//! lock, no allocation.
//!
//! A place of the table is written by one thread at a time, the one that has `taken` it:
//!
//! | field | written | read by the handler |
//! |---|---|---|
//! | `start` | Release, after `end`; 0 = nothing is guarded | Acquire, before and after `end` |
//! | `end`, `stand_in` | while `start` is 0 | between both looks at `start` |
//! | `faults` | by the handler | |
#![expect(
    unsafe_code,
    reason = "a signal handler, and mapping a page over a lost one"
)]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};

use super::map::Region;
pub(crate) use super::stand_in::LostPages;
use super::stand_in::StandIn;

/// Ranges that can be guarded at one time, in all sessions of the process: a session has four.
const PLACES: usize = 64;

struct Place {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    /// What takes the place of lost pages; null = an empty page each.
    stand_in: AtomicPtr<StandIn>,
    faults: AtomicU64,
}

static TABLE: [Place; PLACES] = [const {
    Place {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        stand_in: AtomicPtr::new(ptr::null_mut()),
        faults: AtomicU64::new(0),
    }
}; PLACES];
/// Who handled the signal before; null = the default action. Never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A range of mapped memory whose loss does not end the process, until this is dropped. Drop it
/// before the mapping.
#[derive(Debug)]
#[must_use]
pub(crate) struct RangeGuard {
    place: usize,
}

impl RangeGuard {
    /// Guards `bytes` bytes from the page boundary `start` on. `None` when every place of the
    /// table is taken.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub(crate) fn new(start: *const u8, bytes: usize) -> io::Result<Option<Self>> {
        Self::with(start as usize, bytes, ptr::null_mut())
    }

    /// `stand_in` is null, or outlives the guard.
    fn with(start: usize, bytes: usize, stand_in: *mut StandIn) -> io::Result<Option<Self>> {
        install()?;
        let free = TABLE.iter().position(|place| {
            place
                .taken
                .compare_exchange(false, true, AcqRel, Relaxed)
                .is_ok()
        });
        let Some(index) = free else {
            return Ok(None);
        };
        let place = &TABLE[index];
        place.faults.store(0, Relaxed);
        place.stand_in.store(stand_in, Relaxed);
        place.end.store(start + bytes, Relaxed);
        // Release: pairs with the Acquire in `lost_page`; the rest is that of this range.
        place.start.store(start, Release);
        Ok(Some(Self { place: index }))
    }

    /// Pages that were lost.
    pub(crate) fn faults(&self) -> u64 {
        // Acquire: pairs with the Release in `lost_page`, which may have run on another thread.
        TABLE[self.place].faults.load(Acquire)
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let place = &TABLE[self.place];
        place.start.store(0, Release);
        place.taken.store(false, Release);
    }
}

/// A range that many threads use, guarded so that its pages keep what its file still has.
#[derive(Debug)]
#[must_use]
pub(crate) struct FileGuard {
    // Dropped before what it points to.
    _range: RangeGuard,
    stand_in: Box<StandIn>,
}

impl FileGuard {
    /// Guards the mapping of a file. `None` when every place of the table is taken.
    ///
    /// # Errors
    /// When the handler cannot be installed, or there is no memory to stand in.
    pub(crate) fn new(region: &Region, file: &File) -> io::Result<Option<Self>> {
        let (start, bytes) = (region.ptr() as usize, region.len());
        let stand_in = Box::new(StandIn::new(file.try_clone()?, start, bytes)?);
        let range = RangeGuard::with(start, bytes, ptr::from_ref(&*stand_in).cast_mut())?;
        Ok(range.map(|range| Self {
            _range: range,
            stand_in,
        }))
    }

    /// What was replaced.
    pub(crate) fn counts(&self) -> LostPages {
        self.stand_in.counts()
    }

    /// Replacements that began: bytes that were read before this was the same number are right.
    pub(crate) fn begun(&self) -> u64 {
        self.stand_in.begun()
    }

    /// Whether bytes of the file were lost, or cannot be had.
    pub(crate) fn is_lost(&self, offset: usize, bytes: usize) -> bool {
        self.stand_in.is_lost(offset, bytes)
    }

    /// Replaces every page behind the end of the file now.
    pub(crate) fn replace_cut(&self) {
        self.stand_in.replace_cut();
    }
}

/// Installs the handler, if it is not there. One that the program has put over ours later stays:
/// that is the program's decision, and it may pass signals on to us.
fn install() -> io::Result<()> {
    // No lock: a child that was forked while a thread of its parent held it would wait for ever.
    // Threads that race install the same handler over it.
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.load(Acquire) {
        return Ok(());
    }
    PAGE_BYTES.store(rustix::param::page_size(), Relaxed);
    // SAFETY: all bytes zero are a valid `sigaction`: the default action, no flags.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer asks without changing; `previous` outlives the call.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the handler, which reads it. Release: pairs with the Acquire in `chain`. Not ours, if
    // another thread was faster, and not what that thread has found, if it was much faster.
    if previous.sa_sigaction != handle as *const () as usize {
        let found = Box::into_raw(Box::new(previous));
        if PREVIOUS
            .compare_exchange(ptr::null_mut(), found, Release, Relaxed)
            .is_err()
        {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(found) });
        }
    }
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handle as *const () as usize;
    // On the alternate stack, as the handler of std: the thread may have no other left.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `ours` is filled; the handler fits SA_SIGINFO and is async-signal-safe.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    INSTALLED.store(true, Release);
    Ok(())
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno of this thread; the kernel keeps it nowhere, and the program may look at it
    // after the instruction that we interrupted.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the kernel gives SA_SIGINFO handlers a valid `info`.
    let what = unsafe { &*info };
    // A fault has a positive code; a signal that a process sends has not.
    let is_fault = what.si_code > 0;
    let replaced = is_fault && {
        // SAFETY: SIGBUS by a fault carries an address.
        let address = unsafe { what.si_addr() };
        lost_page(address as usize)
    };
    if !replaced {
        chain(signal, info, context, is_fault);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Puts another page where `address` is, if it is in a guarded range.
fn lost_page(address: usize) -> bool {
    let place = TABLE.iter().find(|place| {
        // Acquire: pairs with the Release in `new`. The second look sees a place that was given
        // to another range in between.
        let start = place.start.load(Acquire);
        let end = place.end.load(Acquire);
        start != 0 && (start..end).contains(&address) && place.start.load(Acquire) == start
    });
    let Some(place) = place else {
        return false;
    };
    // Relaxed: stored before `start`, and a range with faults lives.
    let stand_in = place.stand_in.load(Relaxed);
    // SAFETY: null, or outlives the guard of the range, which lives while threads use the range.
    if let Some(stand_in) = unsafe { stand_in.as_ref() } {
        return stand_in.replace_at(address);
    }
    let bytes = PAGE_BYTES.load(Relaxed);
    let page = address & !(bytes - 1);
    // SAFETY: the page is one of a mapping of ours, which lives as long as its range is guarded;
    // what it held is lost, and the pointers into it stay valid.
    let mapped = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    // Release: pairs with the Acquire in `faults`.
    place.faults.fetch_add(1, Release);
    true
}

/// Does what would have happened without us.
fn chain(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    is_fault: bool,
) {
    // Acquire: pairs with the Release in `install`.
    let previous = PREVIOUS.load(Acquire);
    // SAFETY: null, or a structure that is never freed or changed.
    let Some(previous) = (unsafe { previous.as_ref() }) else {
        return default_action(signal, is_fault);
    };
    if previous.sa_flags & libc::SA_RESETHAND != 0 {
        PREVIOUS.store(ptr::null_mut(), Release);
    }
    match previous.sa_sigaction {
        libc::SIG_DFL => default_action(signal, is_fault),
        // The kernel does not let a fault be ignored: it ends the process.
        libc::SIG_IGN if is_fault => default_action(signal, is_fault),
        libc::SIG_IGN => {}
        handler => call(previous, handler, signal, info, context),
    }
}

/// Calls the function that handled the signal before, under the mask that it asked for.
fn call(
    previous: &libc::sigaction,
    handler: usize,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: all bytes zero are a valid set.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    let mask = &raw const previous.sa_mask;
    // SAFETY: both sets are valid; sets the mask of this thread alone.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, mask, &raw mut before) };
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Function = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: whoever set SA_SIGINFO gave a function of this type.
        let function = unsafe { std::mem::transmute::<usize, Function>(handler) };
        function(signal, info, context);
    } else {
        // SAFETY: neither SIG_DFL nor SIG_IGN, and no SA_SIGINFO: a function of this type.
        let function = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
        function(signal);
    }
    // SAFETY: the mask from before the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
}

/// The process ends: with the core of the instruction that faulted, which runs again.
fn default_action(signal: libc::c_int, is_fault: bool) {
    // SAFETY: all bytes zero are the default action.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid action for a signal that may have one.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    if !is_fault {
        // Nothing runs again; the signal is blocked until the handler returns, and waits.
        // SAFETY: async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}
