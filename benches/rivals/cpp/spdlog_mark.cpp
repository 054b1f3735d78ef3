// Measures C++ spdlog in the way in which src/measure.rs measures the others: the same arguments
// (src/task.rs), the same record (src/record.rs), the same steps, the same figures on one line.
#include <sched.h>
#include <spdlog/async.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

using Figures = std::map<std::string, double>;
using Steady = std::chrono::steady_clock;

static double since(Steady::time_point begin) {
    return std::chrono::duration<double>(Steady::now() - begin).count();
}

static uint64_t counter() {
#ifdef __x86_64__
    return __rdtsc();
#else
    return Steady::now().time_since_epoch().count();
#endif
}

struct Record {
    const char *operation;
    std::string id;
    uint16_t port;
    double value;
    bool ok;
};

static std::vector<Record> make_records() {
    std::vector<Record> records;
    for (uint64_t index = 0; index < 256; index++) {
        uint64_t mix = (index + 1) * 0x9e3779b97f4a7c15ULL;
        records.push_back({"start_container", fmt::format("ct-{:09}", index),
                           static_cast<uint16_t>(1024 + (mix >> 52)),
                           static_cast<double>(mix >> 32 & 0xffff) + 0.125, (mix & 1) == 0});
    }
    return records;
}

static const std::vector<Record> RECORDS = make_records();

struct Logger {
    std::shared_ptr<spdlog::logger> log;

    explicit Logger(const std::string &dir) {
        log = spdlog::create_async<spdlog::sinks::basic_file_sink_mt>("mark", dir + "/lines.log");
    }

    void call(size_t number) {
        const Record &record = RECORDS[number % RECORDS.size()];
        log->info("{} id={} port={} value={} ok={}", record.operation, record.id, record.port,
                  record.value, record.ok);
    }

    void finish() {
        log.reset();
        spdlog::shutdown();
    }
};

static rusage usage(int who) {
    rusage all;
    if (getrusage(who, &all) != 0) std::abort();
    return all;
}

static double cpu_seconds() {
    rusage all = usage(RUSAGE_SELF);
    return static_cast<double>(all.ru_utime.tv_sec + all.ru_stime.tv_sec) +
           static_cast<double>(all.ru_utime.tv_usec + all.ru_stime.tv_usec) / 1e6;
}

static long thread_waits() { return usage(RUSAGE_THREAD).ru_nvcsw; }

// A number of a line of `status` in a directory of /proc; 0 when it is gone.
static long status_of(const std::filesystem::path &dir, const std::string &name) {
    std::ifstream status(dir / "status");
    std::string line;
    while (std::getline(status, line))
        if (line.rfind(name + ":", 0) == 0) return std::stol(line.substr(name.size() + 1));
    return 0;
}

static long process_waits() {
    long waits = 0;
    for (auto &task : std::filesystem::directory_iterator("/proc/self/task"))
        waits += status_of(task.path(), "voluntary_ctxt_switches");
    return waits;
}

static void pin() {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) std::abort();
    CPU_ZERO(&one);
    int first = 0;
    while (!CPU_ISSET(first, &allowed)) first++;
    CPU_SET(first, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) std::abort();
}

static double quantile(std::vector<double> &samples, double part) {
    std::sort(samples.begin(), samples.end());
    return samples[static_cast<size_t>(std::llround(static_cast<double>(samples.size() - 1) * part))];
}

struct Clock {
    double ns_per_tick;
    uint64_t empty_ticks;

    Clock() {
        auto begin = Steady::now();
        uint64_t ticks = counter();
        while (since(begin) < 0.1) {
        }
        ticks = counter() - ticks;
        ns_per_tick = since(begin) * 1e9 / static_cast<double>(ticks);
        std::vector<double> empty;
        for (int i = 0; i < 4001; i++) {
            uint64_t before = counter();
            empty.push_back(static_cast<double>(counter() - before));
        }
        empty_ticks = static_cast<uint64_t>(quantile(empty, 0.5));
    }

    double ns(uint64_t begin, uint64_t end) const {
        uint64_t ticks = end - begin;
        return static_cast<double>(ticks > empty_ticks ? ticks - empty_ticks : 0) * ns_per_tick;
    }
};

static std::map<std::string, std::string> task;

static size_t number_of(const char *name) { return std::stoul(task.at(name)); }

static void sleep_us(size_t us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); }

// A logger that has been called, and has come to rest.
struct Warmed {
    Logger logger{task.at("dir")};
    size_t logged = 0;

    Warmed() {
        while (logged < 2000) call();
        sleep_us(200000);
        pin();
    }

    void call() { logger.call(logged++); }
};

static Figures calls() {
    Warmed warmed;
    Clock clock;
    size_t bursts = number_of("bursts"), burst = number_of("burst");
    std::vector<double> means, singles;
    long waits = 0;
    for (size_t number = 0; number < bursts; number++) {
        sleep_us(number_of("gap_us"));
        long waits_before = thread_waits();
        if (number % 2 == 0) {
            uint64_t begin = counter();
            for (size_t i = 0; i < burst; i++) warmed.call();
            means.push_back(clock.ns(begin, counter()) / static_cast<double>(burst));
        } else {
            for (size_t i = 0; i < burst; i++) {
                uint64_t begin = counter();
                warmed.call();
                singles.push_back(clock.ns(begin, counter()));
            }
        }
        waits += thread_waits() - waits_before;
    }
    warmed.logger.finish();
    return {{"logged", static_cast<double>(warmed.logged)},
            {"clock_ns", static_cast<double>(clock.empty_ticks) * clock.ns_per_tick},
            {"burst_p50_ns", quantile(means, 0.5)},
            {"burst_p99_ns", quantile(means, 0.99)},
            {"call_p50_ns", quantile(singles, 0.5)},
            {"call_p99_ns", quantile(singles, 0.99)},
            {"call_p999_ns", quantile(singles, 0.999)},
            {"waits_per_k", static_cast<double>(waits) / static_cast<double>(bursts * burst) * 1e3}};
}

static Figures cold() {
    Warmed warmed;
    Clock clock;
    std::vector<unsigned char> other(8 << 20);
    volatile unsigned char *bytes = other.data();
    std::vector<double> samples;
    for (size_t number = 0; number < number_of("cold"); number++) {
        sleep_us(1000);
        for (size_t at = 0; at < other.size(); at += 64)
            bytes[at] = static_cast<unsigned char>(bytes[at] + 1);
        uint64_t begin = counter();
        warmed.call();
        samples.push_back(clock.ns(begin, counter()));
    }
    warmed.logger.finish();
    return {{"logged", static_cast<double>(warmed.logged)},
            {"cold_p50_ns", quantile(samples, 0.5)},
            {"cold_p99_ns", quantile(samples, 0.99)}};
}

static Figures file(size_t producers) {
    Logger logger(task.at("dir"));
    size_t each = number_of("records") / producers;
    std::atomic<bool> go{false};
    std::atomic<size_t> ready{0};
    std::atomic<long> waits{0};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < producers; i++)
        threads.emplace_back([&] {
            ready++;
            while (!go.load()) std::this_thread::yield();
            long waits_before = thread_waits();
            for (size_t number = 0; number < each; number++) logger.call(number);
            waits += thread_waits() - waits_before;
        });
    while (ready.load() < producers) std::this_thread::yield();
    auto begin = Steady::now();
    double cpu = cpu_seconds();
    go = true;
    for (auto &thread : threads) thread.join();
    logger.finish();
    double seconds = since(begin);
    cpu = cpu_seconds() - cpu;
    auto bytes = std::filesystem::file_size(task.at("dir") + "/lines.log");
    return {{"logged", static_cast<double>(each * producers)},
            {"seconds", seconds},
            {"cpu_seconds", cpu},
            {"bytes", static_cast<double>(bytes)},
            {"waits", static_cast<double>(waits.load())},
            {"peak_mib", static_cast<double>(status_of("/proc/self", "VmHWM")) / 1024.0}};
}

static Figures idle() {
    Warmed warmed;
    sleep_us(1000000);
    auto begin = Steady::now();
    double cpu = cpu_seconds();
    long waits = process_waits();
    sleep_us(number_of("idle_ms") * 1000);
    double seconds = since(begin);
    cpu = cpu_seconds() - cpu;
    waits = process_waits() - waits - 1;
    warmed.logger.finish();
    return {{"logged", static_cast<double>(warmed.logged)},
            {"idle_percent", cpu / seconds * 100.0},
            {"idle_wakes", static_cast<double>(std::max(waits, 0L)) / seconds}};
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        std::string argument = arguments[i];
        size_t equals = argument.find('=');
        if (equals != std::string::npos)
            task[argument.substr(0, equals)] = argument.substr(equals + 1);
    }
    const std::string &kind = task.at("kind");
    Figures figures;
    if (kind == "calls") figures = calls();
    if (kind == "cold") figures = cold();
    if (kind == "file1") figures = file(1);
    if (kind == "file2") figures = file(2);
    if (kind == "idle") figures = idle();
    std::string line;
    for (auto &[name, value] : figures)
        line += fmt::format("{}\"{}\":{}", line.empty() ? "{" : ",", name, value);
    std::printf("%s}\n", line.c_str());
    return figures.empty();
}
