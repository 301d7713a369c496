// Sums of products, the arithmetic of convolutions and fully-connected layers.
//
// Numbers are multiplied 32 bits at a time, a unit: one float32 number; a pair of bfloat16 numbers where the processor
// multiplies them, whose products are added up in float32; or four int8 numbers, added up in int32. Elsewhere bfloat16
// numbers are widened to float32 first. Beside that the arithmetics share all code.

#pragma once

#include "vector.h"

namespace {

using Unit = std::uint32_t;
#define ALONE __attribute__((noinline))  // inlined, the inner loops would share their registers with what is around them

// Memory of a thread that stays with it from call to call.
char* scratch(int which, Index bytes) {
  struct Held {
    char* memory = nullptr;
    Index bytes = 0;
    ~Held() { release(memory); }
  };
  thread_local Held held[4];
  Held& own = held[which];
  if (own.bytes < bytes) {
    release(own.memory);
    own.bytes = 0;
    own.memory = static_cast<char*>(allocate(bytes));
    if (!own.memory) out_of_memory();
    own.bytes = bytes;
  }
  return own.memory;
}

inline void put(float& to, float from) { to = from; }
inline void put(Bfloat16& to, Bfloat16 from) { to = from; }
inline void put(Bfloat16& to, float from) { to = to_bfloat16(from); }
inline void put(float& to, Bfloat16 from) { to = from_bfloat16(from); }
inline void put(std::uint8_t& to, std::int8_t from) { to = std::uint8_t(from); }
inline float number(float f) { return f; }
inline float number(Bfloat16 h) { return from_bfloat16(h); }

// What is multiplied: `Number`, FOLD of them to a unit, added up in a vector of `Sum`; and the type of the maps that
// come out or whose gradient comes in.
struct Float32 {
  using Number = float;
  using Stored = float;
  using Sum = Vector;
  static constexpr Index FOLD = 1;
};
struct WidenedBfloat16 : Float32 {
  using Stored = Bfloat16;
};
inline Vector add_products(Float32, Vector sum, Bits32 a, Bits32 b) { return sum + (Vector)a * (Vector)b; }
#if defined(WIDE_MASKS) && defined(__AVX512BF16__)
struct NativeBfloat16 {
  using Number = Bfloat16;
  using Stored = Bfloat16;
  using Sum = Vector;
  static constexpr Index FOLD = 2;
};
inline Vector add_products(NativeBfloat16, Vector sum, Bits32 a, Bits32 b) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, bits<__m512bh>(a), bits<__m512bh>(b));
}
#else
using NativeBfloat16 = WidenedBfloat16;
#endif

// Activations 0..127 times weights -127..127: two such products fit 16 bits, which AVX2 adds up in pairs.
struct Int8 {
  using Number = std::uint8_t;
  using Sum = Whole;
  static constexpr Index FOLD = 4;
};
inline Whole add_products(Int8, Whole sum, Bits32 activations, Bits32 weights) {
#if defined(WIDE_MASKS) && defined(__AVX512VNNI__)
  return (Whole)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)activations, (__m512i)weights);
#elif defined(WIDE_MASKS)
  const __m512i pairs = _mm512_maddubs_epi16((__m512i)activations, (__m512i)weights);
  return sum + (Whole)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)activations, (__m256i)weights);
  return sum + (Whole)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
  const Whole a = (Whole)activations, w = (Whole)weights;
  sum += (a & 255) * (w << 24 >> 24);
  sum += (a >> 8 & 255) * (w << 16 >> 24);
  sum += (a >> 16 & 255) * (w << 8 >> 24);
  return sum + (a >> 24 & 255) * (w >> 24);
#endif
}

// Numbers as they are rounded to int8: times `factor`, plus `zero`, within 0..127.
struct Quantizer {
  float factor = 0, zero = 0;
  std::uint8_t operator()(float number) const {
    const float level = number * factor + (zero + 0.5f);
    return std::uint8_t(std::int32_t(level < 0 ? 0 : level > 127 ? 127 : level));
  }
};

// A vector of sums as numbers; those of int8 times what a unit of them is worth.
template <class A> inline Vector finished(A, const void* sums, Vector) { return load_whole<Vector>(sums); }
inline Vector finished(Int8, const void* sums, Vector scale) {
  return __builtin_convertvector(load_whole<Whole>(sums), Vector) * scale;
}

inline Bits32 broadcast(const char* at) {
  Unit unit;
  std::memcpy(&unit, at, sizeof unit);
  return splat(unit);
}

// ---- the two inner loops: R rows of V vectors of sums stay in registers ---------------------------------------------

// Row r walks along `length` units from at[r] + segment, for every segment; b is read straight through.
template <class A, int V, int R>
ALONE void walk_kernel(const char* const* at, const Index* segments, Index count, Index length, const Unit* b, Unit* tile) {
  typename A::Sum sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = typename A::Sum{};
  for (Index s = 0; s < count; ++s) {
    const Index first = segments[s], last = first + 4 * length;
    for (Index i = first; i < last; i += 4, b += V * LANES) {
      Bits32 across[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) across[v] = load_whole<Bits32>(b + v * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Bits32 down = broadcast(at[r] + i);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = add_products(A(), sum[r][v], down, across[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_whole(tile + (r * V + v) * LANES, sum[r][v]);
}

// Row r is the r-th unit at each of `length` positions, `step` bytes apart, from each segment's start.
template <class A, int V, int R>
ALONE void walk_positions(const char* at, const Index* segments, Index count, Index length, Index step, const Unit* b,
                          Unit* tile) {
  typename A::Sum sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = typename A::Sum{};
  for (Index s = 0; s < count; ++s) {
    const char* from = at + segments[s];
    for (Index i = 0; i < length; ++i, from += step, b += V * LANES) {
      Bits32 across[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) across[v] = load_whole<Bits32>(b + v * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Bits32 down = broadcast(from + 4 * r);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = add_products(A(), sum[r][v], down, across[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_whole(tile + (r * V + v) * LANES, sum[r][v]);
}

// Rows of sums, and vectors of each, that fit into the registers beside the operands.
constexpr int MOST = REGISTERS == 32 ? 4 : 2;
constexpr int tall(int vectors) {
  if (REGISTERS == 32) return vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 14;
  return vectors == 2 ? 6 : 12;
}
constexpr int low(int vectors) { return vectors == MOST ? 4 : vectors == 3 ? 6 : 8; }

// Columns of sums, cut into panels of V vectors with as little left over as possible.
struct Panels {
  Index count;
  int vectors;
  explicit Panels(Index columns) {
    const Index all = (columns + LANES - 1) / LANES;
    count = (all + MOST - 1) / MOST;
    vectors = int((all + count - 1) / count);
  }
  Index width() const { return vectors * LANES; }
};

template <class Call> void with_vectors(int vectors, Call call) {
  switch (vectors) {
    case 1: return call(std::integral_constant<int, 1>());
    case 2: return call(std::integral_constant<int, 2>());
    case 3: return call(std::integral_constant<int, std::min(3, MOST)>());
    default: return call(std::integral_constant<int, MOST>());
  }
}

}  // namespace
