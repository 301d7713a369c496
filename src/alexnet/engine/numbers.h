// The types of tensors' elements, and bfloat16 by integer arithmetic that vectorizes everywhere.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

enum Dtype : int { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, INT8 = 3 };  // as in library.py

using Bfloat16 = std::uint16_t;

template <class To, class From> inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The bits of float32 numbers rounded to bfloat16, to nearest even, in the low halves; `Bits` is one or a vector.
template <class Bits> inline Bits round_to_bfloat16(Bits u) {
  const Bits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = Bits{} + 0x7fc0u;
  return (u & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
}

inline float from_bfloat16(Bfloat16 h) { return bits<float>(std::uint32_t(h) << 16); }

inline Bfloat16 to_bfloat16(float f) { return Bfloat16(round_to_bfloat16(bits<std::uint32_t>(f))); }

}  // namespace
