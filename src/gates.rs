//! The gates: what a push looks at before anything else.
#![expect(unsafe_code, reason = "the gate page is mapped memory")]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8};

use crate::record::SCHEMAS_MAX;
use crate::sync::full_fence;
use crate::sys::map::Region;
use crate::sys::report::put;

/// Gate of a schema whose records go straight to the ring. With other bits set: records are taken,
/// after a decision.
pub(crate) const GATE_ON: u8 = 0x80;
/// The category has a policy, or normal records are shed. (Pressure alone may say so too: then it
/// means nothing.)
pub(crate) const GATE_POLICY: u8 = 0x20;
/// Stress rules look at the records of the schema.
pub(crate) const GATE_RULES: u8 = 0x40;
/// The bits of the pressure, 0..=15.
pub(crate) const GATE_K: u8 = 0x0f;
/// Gate of a schema whose records are refused, because its category or recording is off. Every
/// gate below, but [`GATE_ON`], means: take the cold path and look.
pub(crate) const GATE_OFF: u8 = 0xf0;
/// Content of the unused gate 0; a forked child reads 0 there, and in every other gate.
const GATE_ALIVE: u8 = 1;

/// The gate of a schema whose records are taken: by its rules, its policies, and the pressure of
/// its category.
pub(crate) const fn open_gate(rules: bool, policy: bool, k: u8) -> u8 {
    match (rules, policy, k) {
        (false, false, 0) => GATE_ON,
        (false, false, k) => GATE_OFF | k,
        (false, true, k) => GATE_ON | GATE_POLICY | k,
        (true, false, k) => GATE_ON | GATE_RULES | k,
        (true, true, k) => GATE_ON | GATE_RULES | GATE_POLICY | k,
    }
}

/// Whether the gate takes records, and rules look at them.
pub(crate) const fn is_ruled(gate: u8) -> bool {
    gate & (GATE_ON | GATE_RULES | 0x10) == GATE_ON | GATE_RULES
}

/// What the gate would be without rules.
pub(crate) const fn without_rules(gate: u8) -> u8 {
    if is_ruled(gate) {
        open_gate(false, gate & GATE_POLICY != 0, gate & GATE_K)
    } else {
        gate
    }
}

/// Whether the gate takes records, after a decision or without.
pub(crate) const fn is_open(gate: u8) -> bool {
    gate & GATE_ON != 0 && gate != GATE_OFF
}

/// Whether the gate says: pressure, and nothing else. Then it is [`GATE_OFF`] plus the pressure:
/// one comparison tells both from the rest, and a difference gives k.
#[inline(always)]
pub(crate) const fn is_pressure(gate: u8) -> bool {
    gate > GATE_OFF
}

/// What a forked child is told that goes on as if it were its parent.
const FORKED: &[u8] =
    b"stormlog: this process was forked while a session was open: its records are \
    not taken; start a session in this process\n";

/// One byte per schema: the only thing that a push looks at before it touches its arguments.
///
/// The page is wiped in a forked child, where every gate then reads 0 and every push takes the
/// cold path, which refuses it: a child can never write into the rings of its parent, at no cost
/// for the parent.
#[derive(Debug)]
pub(crate) struct Gates {
    region: Region,
}

/// Stores a gate whose value depends on things that other threads change. Whoever has changed one
/// of them calls this after it, so that the last of several callers leaves the right value: by the
/// fences, of two callers one sees what the other has changed, and when both do, both store the
/// same.
pub(crate) fn settle(value: impl Fn() -> u8, store: impl Fn(u8)) {
    full_fence("fence_changed");
    loop {
        let stored = value();
        store(stored);
        full_fence("fence_stored");
        if stored == value() {
            return;
        }
    }
}

impl Gates {
    pub(crate) fn new() -> std::io::Result<Self> {
        let gates = Self {
            region: Region::anonymous(SCHEMAS_MAX)?,
        };
        // Where the kernel cannot wipe, a child must check for itself: refuse to start instead.
        gates.region.wipe_on_fork()?;
        // Relaxed: nobody else has them yet.
        gates.gate(0).store(GATE_ALIVE, Relaxed);
        Ok(gates)
    }

    /// All gates.
    pub(crate) fn ptr(&self) -> *const [AtomicU8; SCHEMAS_MAX] {
        self.region.ptr().cast()
    }

    pub(crate) fn gate(&self, schema: u16) -> &AtomicU8 {
        // SAFETY: the region has one zeroed byte per schema, is mapped as long as `self` lives and
        // is accessed as atomics only.
        let gates = unsafe { &*self.ptr() };
        &gates[usize::from(schema)]
    }

    /// Whether this process is a child that was forked while the session was open.
    pub(crate) fn is_forked(&self) -> bool {
        self.gate(0).load(Relaxed) == 0
    }

    /// A forked child was refused a record: says so, once.
    #[cold]
    pub(crate) fn tell_forked() {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Relaxed) {
            put(FORKED);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_gate_of_its_own() {
        let mut seen = vec![0, GATE_ALIVE, GATE_OFF];
        assert!(!seen.iter().any(|gate| is_open(*gate) || is_pressure(*gate)));
        assert!(!seen.iter().any(|gate| is_ruled(*gate)));
        for (rules, policy) in [(false, false), (false, true), (true, false), (true, true)] {
            for k in 0..=GATE_K {
                let gate = open_gate(rules, policy, k);
                assert!(is_open(gate));
                assert_eq!(gate & GATE_K, k);
                assert!(!policy || gate & GATE_POLICY != 0);
                assert_eq!(is_ruled(gate), rules);
                assert_eq!(without_rules(gate), open_gate(false, policy, k));
                assert_eq!(is_pressure(gate), !rules && !policy && k > 0);
                assert_eq!(gate == GATE_ON, !rules && !policy && k == 0);
                assert!(!seen.contains(&gate), "{gate:#x} stands for two states");
                seen.push(gate);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::ring::models::check;
    use crate::sync::AtomicU32;

    /// Two threads change two things that a gate depends on: it comes out as both want it.
    #[test]
    fn loom_gate() {
        check(20, &["fence_changed", "fence_stored"], || {
            let switches = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            let gate = Arc::new(AtomicU32::new(0));
            let change = |index: usize| {
                let (switches, gate) = (Arc::clone(&switches), Arc::clone(&gate));
                thread::spawn(move || {
                    switches[index].store(1, Relaxed);
                    let value = || (switches[0].load(Relaxed) & switches[1].load(Relaxed)) as u8;
                    settle(value, |stored| gate.store(stored.into(), Relaxed));
                })
            };
            let (a, b) = (change(0), change(1));
            a.join().unwrap();
            b.join().unwrap();
            assert_eq!(gate.load(Relaxed), 1, "a change is lost");
        });
    }
}
