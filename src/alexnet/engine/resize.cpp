// Squares of RGB brought to another size, with one table of weights for rows and columns.
//
// Weights are whole numbers that sum to 65536, so every sum is below 2^24 and float arithmetic is exact in any order:
// each target gives the bits of the plain version in resize.py.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"

namespace {

using Floats4 = float __attribute__((vector_size(16)));
using Ints4 = std::int32_t __attribute__((vector_size(16)));

constexpr float HALF = 32768, UNIT = 65536;
constexpr Index PIECE = 64;  // values of a row that are summed in registers

// How many weights come before the zeros at the end.
inline Index used(const float* weights, Index taps) {
  while (taps > 1 && weights[taps - 1] == 0) --taps;
  return taps;
}

}  // namespace

// pixels: rows of `stride` bytes, each of `side` pixels of 3 bytes; out: (size, size, 3). Row or column i of the output
// is the sum of `taps` of the input from first[i] on, by weights[i * taps ...], over 65536, rounded. `row` is memory for
// 3 * side + 64 numbers.
KERNEL(resize)(const std::uint8_t* pixels, Index stride, Index side, Index size, const std::int32_t* first,
               const float* weights, Index taps, float* row, std::uint8_t* out) {
  const Index width = 3 * side;
  for (Index y = 0; y < size; ++y) {
    const float* w = weights + y * taps;
    const Index rows = used(w, taps);
    for (Index left = 0; left < width; left += PIECE) {
      const Index n = std::min(PIECE, width - left);
      float sums[PIECE];
      for (float& sum : sums) sum = HALF;
      const std::uint8_t* from = pixels + first[y] * stride + left;
      for (Index t = 0; t < rows; ++t, from += stride) {
        if (n == PIECE) {
          for (Index i = 0; i < PIECE; ++i) sums[i] += w[t] * float(std::int32_t(from[i]));
        } else {
          for (Index i = 0; i < n; ++i) sums[i] += w[t] * float(std::int32_t(from[i]));
        }
      }
      for (Index i = 0; i < PIECE; ++i) row[left + i] = float(std::int32_t(sums[i] / UNIT));
    }
    std::uint8_t* to = out + y * size * 3;
    for (Index x = 0; x < size; ++x) {
      Floats4 sum = {HALF, HALF, HALF, HALF};
      const float* from = row + 3 * first[x];
      w = weights + x * taps;
      for (Index t = 0, columns = used(w, taps); t < columns; ++t) {
        Floats4 pixel;  // and a value of the next
        std::memcpy(&pixel, from + 3 * t, sizeof pixel);
        sum += w[t] * pixel;
      }
      const Ints4 whole = __builtin_convertvector(sum / UNIT, Ints4);
      for (int c = 0; c < 3; ++c) to[3 * x + c] = std::uint8_t(whole[c]);
    }
  }
  return 0;
}
