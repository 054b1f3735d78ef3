//! What the checks allow, and where: each exception with its reason.

/// Files with lines that are longer, and how many: rustfmt breaks neither the body of a macro nor
/// a string.
pub const LONG_LINES: [(&str, usize, &str); 5] = [
    ("src/convert/index.rs", 1, "a message"),
    ("src/convert/json_tests.rs", 1, "a line of JSON"),
    (
        "src/convert/time.rs",
        3,
        "expected times beside their nanoseconds",
    ),
    ("src/record/macros.rs", 3, "the body of a macro"),
    ("src/segment/clock_tests.rs", 2, "messages"),
];

/// Files of more than [`LINES_MAX`] lines.
pub const LONG_FILES: [(&str, &str); 1] = [(
    "tests/convert.rs",
    "one table of cases over one session builder",
)];

/// Files of `src` with more than [`PLAIN_LINES_MAX`] lines before their tests.
pub const LONG_SOURCES: [(&str, &str); 1] =
    [("src/record/field.rs", "one block per field type, all alike")];

/// The files that may use `unsafe`, and what for.
pub const UNSAFE_FILES: [(&str, &str); 39] = [
    ("benches/support/counter.rs", "reads the counter"),
    (
        "src/cli/bench/overhead/child.rs",
        "waits for a process and asks what it has used",
    ),
    ("src/context/task.rs", "polls a future that is a field"),
    ("src/gates.rs", "the gate page is mapped memory"),
    (
        "src/local.rs",
        "dereferences the ring that the table remembers",
    ),
    (
        "src/producer/mod.rs",
        "the handle points straight at the gates",
    ),
    (
        "src/producer/offer.rs",
        "`Head` is Pod by its packed layout",
    ),
    ("src/record/field.rs", "`Maybe` is Pod by its packed layout"),
    (
        "src/record/intern.rs",
        "a slot turns a pointer back into the &'static it was",
    ),
    (
        "src/ring/aggregate.rs",
        "turns offsets into the structures that lie there",
    ),
    (
        "src/ring/buffer.rs",
        "slices over memory that two threads share by protocol",
    ),
    (
        "src/ring/large.rs",
        "slices over chunks that belong to one side at a time",
    ),
    (
        "src/ring/models.rs",
        "models share memory as the real rings do",
    ),
    (
        "src/ring/models_registry.rs",
        "models share memory as the real registry does",
    ),
    (
        "src/ring/models_spill.rs",
        "models share memory as the real spill does",
    ),
    ("src/ring/registry.rs", "words and bytes of a shared region"),
    (
        "src/ring/spsc.rs",
        "claims bytes of the ring by the protocol",
    ),
    (
        "src/ring/slot.rs",
        "turns offsets into the structures that lie there",
    ),
    (
        "src/ring/spill.rs",
        "slices over slots that belong to one side at a time",
    ),
    ("src/ring/spsc_tests.rs", "a ring over memory of the test"),
    (
        "src/ring/storage.rs",
        "turns offsets into the structures that lie there",
    ),
    (
        "src/ring/storage/counts.rs",
        "turns offsets into the pages that lie there",
    ),
    ("src/sys/affinity.rs", "asks the scheduler for short turns"),
    ("src/sys/clock.rs", "reading the counter is an intrinsic"),
    (
        "src/sys/map.rs",
        "mapping memory and advising the kernel about it",
    ),
    ("src/sys/prefetch.rs", "instructions that have no safe name"),
    (
        "src/sys/sigbus.rs",
        "a signal handler, and mapping a page over a lost one",
    ),
    (
        "src/sys/signal.rs",
        "signal handlers have no safe interface",
    ),
    ("src/sys/stand_in.rs", "mapping a page over a lost one"),
    ("tests/hostile.rs", "forks"),
    ("tests/liveness.rs", "forks"),
    ("tests/memory.rs", "asks what a child has used"),
    ("tests/power_loss.rs", "asks what is not on the disk"),
    ("tests/process_events.rs", "forks, an exit handler"),
    (
        "tests/quiet.rs",
        "an allocator that counts, a filter of syscalls",
    ),
    (
        "tests/sigbus.rs",
        "signal handlers, and memory that is lost",
    ),
    (
        "tests/support/crash.rs",
        "the page that parent and child share",
    ),
    ("tests/support/peak.rs", "an allocator that counts"),
    ("tests/support/process.rs", "forks, signals, shared memory"),
];

/// What a module may name of the others with `crate::`. A path allows everything below it. The
/// table is the picture in docs/ARCHITECTURE.md; `error` and `record` are open to all.
pub const LAYERS: [(&str, &[&str]); 31] = [
    ("sync", &[]),
    ("error", &[]),
    ("fail", &[]),
    ("record", &["symbol"]),
    ("durations", &[]),
    ("ledger", &[]),
    ("sampling", &[]),
    ("redact", &[]),
    // `WriterCore` and `ClockPoint` are plain data.
    (
        "sys",
        &["config::WriterCore", "segment::entry", "segment::layout"],
    ),
    ("wake", &["sync"]),
    (
        "ring",
        &[
            "durations",
            "ledger",
            "sampling::Gaps",
            "segment::entry",
            "segment::layout",
            "sync",
            "sys",
            "wake::wakes_at",
        ],
    ),
    ("segment", &["ledger", "redact::Rules", "sys"]),
    ("stress", &["sync"]),
    // The bounds of settings stand where they are made.
    (
        "config",
        &[
            "redact::Rules",
            "ring::SPILL_BYTES_",
            "ring::TOTAL_BYTES_",
            "segment::prepare",
            "stress::StressSettings",
            "writer::segment_bytes_min",
        ],
    ),
    ("losses", &["ledger"]),
    (
        "policy",
        &["config::CategoryRules", "config::RateLimit", "sampling"],
    ),
    ("gates", &["sync", "sys"]),
    (
        "core",
        &[
            "durations",
            "gates",
            "ledger",
            "losses",
            "policy",
            "ring",
            "segment::entry",
            "stress::Online",
            "sync",
            "sys",
            "wake",
        ],
    ),
    ("local", &["core", "ring"]),
    ("context", &["local", "symbol", "sys"]),
    (
        "producer",
        &[
            "context", "core", "gates", "ledger", "local", "policy", "ring", "sampling", "stress",
            "wake",
        ],
    ),
    (
        "writer",
        &[
            "core",
            "durations",
            "ledger",
            "ring",
            "segment",
            "sys",
            "wake",
        ],
    ),
    // `ConvertedFile` is part of two reports.
    (
        "convert",
        &[
            "ledger",
            "redact",
            "segment",
            "session::ConvertedFile",
            "sys::dir",
            "sys::file",
            "sys::reserve",
        ],
    ),
    (
        "recover",
        &[
            "convert::rfc3339",
            "durations",
            "ledger",
            "ring",
            "segment",
            "sys",
            "writer::OperationEnd",
        ],
    ),
    (
        "session",
        &[
            "config",
            "convert",
            "core",
            "durations",
            "ledger",
            "policy",
            "producer",
            "recover",
            "redact::Rules",
            "resources",
            "ring",
            "segment",
            "stress",
            "sync",
            "sys",
            "wake",
            "writer",
        ],
    ),
    ("panics", &["producer", "symbol"]),
    ("resources", &["producer", "symbol", "sys"]),
    (
        "adapters",
        &[
            "Log",
            "context",
            "producer::Fate",
            "redact",
            "sampling::KeyHash",
            "symbol",
        ],
    ),
    ("span", &["context", "producer", "sampling", "symbol"]),
    ("signals", &["session", "sys"]),
    // Only what is public: the compiler would let it see more, because it lies in the library.
    (
        "cli",
        &[
            "convert",
            "durations",
            "ledger",
            "recover",
            "redact",
            "sampling",
            "segment",
            "signals",
            "stress",
            "symbol",
            "CloseReport",
            "Conversion",
            "ConvertedFile",
            "Log",
            "Outcome",
            "RingStorage",
            "Session",
        ],
    ),
];

/// Names of `segment` and `convert` that are public by accident of the module tree.
pub const CLI_FORBIDDEN: [&str; 4] = [
    "segment::writer",
    "segment::prepare",
    "segment::ledger_file",
    "convert::convert_into",
];
