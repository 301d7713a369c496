// Work shared among threads, and the names of kernels: `KERNEL(lrn)(…)` is `alexnet_avx2_lrn` where it is compiled so.
//
// A kernel is compiled once for every target. What it shares with the others, the threads, lies in parallel.cpp, which
// any processor can run; all else that a kernel uses is its own, so that no target's code is used in another's place.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#if defined(_WIN32)
#include <malloc.h>
#endif

using Index = std::int64_t;

#define ALEXNET_NAMED(target, name) alexnet_##target##_##name
#define ALEXNET_EXPANDED(target, name) ALEXNET_NAMED(target, name)
#if defined(_WIN32)
#define SHARED extern "C" __declspec(dllexport)
#else
#define SHARED extern "C" __attribute__((visibility("default")))
#endif
#define KERNEL(name) SHARED int ALEXNET_EXPANDED(TARGET, name)

// Calls run(data) in up to `threads` threads at once, this one among them; returns when all have ended.
extern "C" void alexnet_in_threads(void (*run)(void*), void* data, Index threads);

namespace {

#if defined(__cpp_exceptions)
#define ALEXNET_TRY try
#define ALEXNET_CATCH(statement) catch (...) { statement; }
[[noreturn]] inline void out_of_memory() { throw std::bad_alloc(); }
#else
#define ALEXNET_TRY
#define ALEXNET_CATCH(statement)
[[noreturn]] inline void out_of_memory() { std::abort(); }
#endif

// Calls body(first, last) over [0, units) in pieces; which thread takes a piece changes nothing in its result.
// False where memory ran out.
template <class Body> bool parallel(Index units, Index elements, Index threads, Body body) {
  struct Shared {
    std::atomic<Index> next{0};
    std::atomic<bool> failed{false};
    Index units, pieces;
    Body* body;
  } shared;
  const Index worth = elements / 32768;  // waking a thread for less costs more than it saves
  threads = std::max<Index>(1, std::min({threads, units, worth}));
  shared.units = units;
  shared.pieces = threads == 1 ? 1 : std::min(units, 4 * threads);
  shared.body = &body;
  auto run = [](void* data) {
    Shared& s = *static_cast<Shared*>(data);
    ALEXNET_TRY {
      for (Index piece; (piece = s.next.fetch_add(1)) < s.pieces;)
        (*s.body)(piece * s.units / s.pieces, (piece + 1) * s.units / s.pieces);
    }
    ALEXNET_CATCH(s.failed = true)
  };
  if (threads == 1) run(&shared);
  else alexnet_in_threads(run, &shared, threads);
  return !shared.failed;
}

// Memory at the start of a cache line, null where there is none; to be given back by `release`.
inline void* allocate(Index bytes) {
  if (bytes > PTRDIFF_MAX - 63) return nullptr;
#if defined(_WIN32)
  return _aligned_malloc(std::size_t(bytes), 64);
#else
  return std::aligned_alloc(64, std::size_t((bytes + 63) / 64 * 64));
#endif
}

inline void release(void* memory) {
#if defined(_WIN32)
  _aligned_free(memory);
#else
  std::free(memory);
#endif
}

// Memory of this call alone, at the start of a cache line; null inside where there is none.
class Memory {
 public:
  explicit Memory(Index bytes) : at_(static_cast<char*>(allocate(bytes))) {}
  ~Memory() { release(at_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  char* get() const { return at_; }

 private:
  char* at_;
};

}  // namespace
