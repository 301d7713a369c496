// Vectors of float32 numbers as wide as the processor's: the compiler's own, with the few operations it lacks.
//
// LANES numbers in a vector, REGISTERS vectors at hand. `count` says how many of a vector's first numbers are meant.

#pragma once

#include "numbers.h"
#include "parallel.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WIDE_MASKS 1
constexpr Index LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr Index LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr Index LANES = 4, REGISTERS = 32;
#else
constexpr Index LANES = 4, REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef std::int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef std::uint32_t Bits32 __attribute__((vector_size(LANES * 4)));
typedef std::uint16_t Bits16 __attribute__((vector_size(LANES * 2)));

inline Bits32 splat(std::uint32_t unit) { return Bits32{} + unit; }
inline Vector rectified(Vector v) { return v < Vector{} ? Vector{} : v; }  // what is not a number stays

template <class V> inline V load_whole(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V> inline void store_whole(void* to, V v) { std::memcpy(to, &v, sizeof v); }

// The totals of four vectors.
template <class V, class Number> inline void totals(const V* four, Number* to) {
#if defined(__AVX2__)
  const auto folded = [](V a, V b) {  // in neighbouring places what is half as many numbers of each
#if defined(WIDE_MASKS)
    return (V)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (V)_mm512_unpackhi_ps((__m512)a, (__m512)b);
#else
    return (V)_mm256_unpacklo_ps((__m256)a, (__m256)b) + (V)_mm256_unpackhi_ps((__m256)a, (__m256)b);
#endif
  };
  typedef Number Four __attribute__((vector_size(16)));
  Four parts[LANES / 4], sum{};
  store_whole(parts, folded(folded(four[0], four[1]), folded(four[2], four[3])));
  for (const Four& part : parts) sum += part;
  to[0] = sum[0], to[1] = sum[2], to[2] = sum[1], to[3] = sum[3];
#else
  for (int i = 0; i < 4; ++i) {
    to[i] = four[i][0];
    for (Index at = 1; at < LANES; ++at) to[i] += four[i][at];
  }
#endif
}

inline Bits32 widen(Bits16 halves) { return __builtin_convertvector(halves, Bits32); }
inline Vector load_all(const float* from) { return load_whole<Vector>(from); }
inline Vector load_all(const Bfloat16* from) { return (Vector)(widen(load_whole<Bits16>(from)) << 16); }

inline Bits16 rounded(Vector v) {
#if defined(WIDE_MASKS) && defined(__AVX512BF16__)
  return bits<Bits16>(_mm512_cvtneps_pbh((__m512)v));
#else
  return __builtin_convertvector(round_to_bfloat16((Bits32)v), Bits16);
#endif
}
inline void store_all(float* to, Vector v) { store_whole(to, v); }
inline void store_all(Bfloat16* to, Vector v) {
  const Bits16 halves = rounded(v);
  std::memcpy(to, &halves, sizeof halves);
}

// The first `count` numbers, zeros after them; nothing beyond them is touched.
#if defined(WIDE_MASKS)
inline __mmask16 first(Index count) { return __mmask16((1u << count) - 1); }
inline Vector load(const float* from, Index count) { return (Vector)_mm512_maskz_loadu_ps(first(count), from); }
inline Bits16 load_halves(const std::uint16_t* from, Index count) {
  return bits<Bits16>(_mm256_maskz_loadu_epi16(first(count), from));
}
inline Vector load(const Bfloat16* from, Index count) { return (Vector)(widen(load_halves(from, count)) << 16); }
inline void store(float* to, Vector v, Index count) { _mm512_mask_storeu_ps(to, first(count), (__m512)v); }
inline void store(std::uint32_t* to, Bits32 v, Index count) {
  _mm512_mask_storeu_epi32(to, first(count), (__m512i)v);
}
inline void store_halves(std::uint16_t* to, Bits16 v, Index count) {
  _mm256_mask_storeu_epi16(to, first(count), bits<__m256i>(v));
}
inline void store(Bfloat16* to, Vector v, Index count) { store_halves(to, rounded(v), count); }
#else
inline Bits16 load_halves(const std::uint16_t* from, Index count) {
  if (count >= LANES) return load_whole<Bits16>(from);
  Bits16 halves{};
  for (Index i = 0; i < count; ++i) halves[i] = from[i];
  return halves;
}
inline void store_halves(std::uint16_t* to, Bits16 v, Index count) {
  if (count >= LANES) return store_whole(to, v);
  for (Index i = 0; i < count; ++i) to[i] = v[i];
}
template <class T> inline Vector load(const T* from, Index count) {
  if (count >= LANES) return load_all(from);
  T numbers[LANES] = {};
  for (Index i = 0; i < count; ++i) numbers[i] = from[i];
  return load_all(numbers);
}
template <class T> inline void store(T* to, Vector v, Index count) {
  if (count >= LANES) return store_all(to, v);
  T numbers[LANES];
  store_all(numbers, v);
  for (Index i = 0; i < count; ++i) to[i] = numbers[i];
}
inline void store(std::uint32_t* to, Bits32 v, Index count) {
#if defined(__AVX2__)
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  _mm256_maskstore_epi32(reinterpret_cast<int*>(to), _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), lanes), (__m256i)v);
#else
  for (Index i = 0; i < std::min(count, LANES); ++i) to[i] = v[i];
#endif
}
#endif

// As `store`, past the caches where that can be: for what is not read again soon.
inline void stream(float* to, Vector v, Index count) {
#if defined(WIDE_MASKS)
  if (count == LANES && reinterpret_cast<std::uintptr_t>(to) % 64 == 0) return _mm512_stream_ps(to, (__m512)v);
#elif defined(__AVX2__)
  if (count == LANES && reinterpret_cast<std::uintptr_t>(to) % 32 == 0) return _mm256_stream_ps(to, (__m256)v);
#endif
  store(to, v, count);
}
inline void end_stream() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// Calls body with a null pointer to the type of a dtype's numbers, float32 or bfloat16.
template <class Body> bool typed(int dtype, Body body) {
  return dtype == BFLOAT16 ? body(static_cast<Bfloat16*>(nullptr)) : body(static_cast<float*>(nullptr));
}

}  // namespace
