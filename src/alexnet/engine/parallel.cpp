// What all targets share: the threads, and which targets this processor can run. Compiled for the plainest processor.

#include "parallel.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <initializer_list>
#endif

#if defined(__wasm__)

extern "C" void alexnet_in_threads(void (*run)(void*), void* data, Index) { run(data); }

extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }  // the only thread never ends

#else

#include <condition_variable>
#include <mutex>
#include <thread>
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace {

using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);
std::atomic<Team> team{nullptr};

inline void breathe() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int SPINS = 4000;  // about what waking a sleeping thread takes

// Threads that wait for work: a short while awake, for kernels follow each other closely, then asleep.
class Pool {
 public:
  // Where another caller has the pool, this one works alone: neither waits for the other.
  void run(void (*work)(void*), void* data, Index threads) {
    std::unique_lock<std::mutex> own(busy_, std::try_to_lock);
    if (!own.owns_lock()) return work(data);
    grow(threads - 1);
    const int seats = int(std::min<Index>(threads - 1, count_));
    work_ = work, data_ = data;
    finished_.store(0);
    seats_.store(seats);
    if (asleep_.load() > 0) {
      { std::lock_guard<std::mutex> lock(sleep_); }
      wake_.notify_all();
    }
    work(data);
    const int taken = seats - seats_.exchange(0);
    for (int spin = 0; finished_.load() < taken; ++spin) spin < SPINS ? breathe() : std::this_thread::yield();
  }

 private:
  void grow(Index wanted) {
    try {
      for (; count_ < wanted; ++count_) std::thread([this] { serve(); }).detach();
    } catch (...) {  // fewer than asked for: the others take their pieces
    }
  }

  bool sit_down() {
    for (int free = seats_.load(); free > 0;)
      if (seats_.compare_exchange_weak(free, free - 1)) return true;
    return false;
  }

  void serve() {
    for (;;) {
      int spin = 0;
      while (!sit_down()) {
        if (++spin < SPINS) {
          breathe();
          continue;
        }
        std::unique_lock<std::mutex> lock(sleep_);
        ++asleep_;
        wake_.wait(lock, [this] { return seats_.load() > 0; });
        --asleep_;
        spin = 0;
      }
      work_(data_);
      finished_.fetch_add(1);
    }
  }

  std::mutex busy_, sleep_;
  std::condition_variable wake_;
  std::atomic<int> seats_{0}, finished_{0}, asleep_{0};
  void (*work_)(void*) = nullptr;
  void* data_ = nullptr;
  Index count_ = 0;
};

std::atomic<Pool*> pool{nullptr};  // never taken down: its threads may outlive everything else

Pool& threads_of_our_own() {
  static const bool once = [] {
    pool = new Pool;
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });  // a forked process has none of the threads
#endif
    return true;
  }();
  (void)once;
  return *pool.load();
}

}  // namespace

extern "C" void alexnet_in_threads(void (*run)(void*), void* data, Index threads) {
  if (Team fork = team.load()) fork(run, data, unsigned(threads), 0);
  else threads_of_our_own().run(run, data, threads);
}

// `fork` is the `GOMP_parallel` of an OpenMP runtime, whose threads are then used; null: threads of our own.
SHARED void alexnet_use_team(void* fork) { team = reinterpret_cast<Team>(fork); }

#endif

#if defined(__x86_64__)

namespace {

// Asked of the processor itself: the compilers' own functions for it are not in every C library.
const char* targets_of_x86() {
  unsigned a = 0, b = 0, c = 0, d = 0, state = 0;
  const auto has = [](unsigned word, std::initializer_list<int> wanted) {
    for (int bit : wanted)
      if (!(word >> bit & 1)) return false;
    return true;
  };
  __get_cpuid(1, &a, &b, &c, &d);
  if (!has(c, {12, 22, 23, 27, 28, 29})) return "plain";  // fma movbe popcnt osxsave avx f16c
  asm volatile("xgetbv" : "=a"(state), "=d"(d) : "c"(0));  // the registers that the system keeps for a program
  __get_cpuid(0x80000001, &a, &b, &c, &d);
  const bool lzcnt = has(c, {5});
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  if (!lzcnt || !has(b, {3, 5, 8}) || !has(state, {1, 2})) return "plain";  // bmi1 avx2 bmi2
#if defined(__APPLE__)
  state |= 0xe0;  // kept from their first use on
#endif
  if (!has(b, {16, 17, 28, 30, 31}) || !has(state, {5, 6, 7})) return "avx2 plain";  // avx512 f dq cd bw vl
  const bool vnni = has(c, {11});
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  return vnni && has(a, {5}) ? "avx512bf16 avx512 avx2 plain" : "avx512 avx2 plain";
}

}  // namespace

#endif

// The targets in this library that this processor can run, the fastest first, with spaces between.
SHARED const char* alexnet_targets() {
#if defined(__x86_64__)
  return targets_of_x86();
#elif defined(__aarch64__)
  return "neon";
#elif defined(__wasm_simd128__)
  return "simd128";
#else
  return "plain";
#endif
}

// What the sources were when this was compiled.
SHARED const char* alexnet_sources() { return ALEXNET_SOURCES; }
