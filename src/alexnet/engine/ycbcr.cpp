// Crops of 4:2:0 squares to RGB, in portable C++17 behind a plain C interface.
//
// Whole numbers of 16 bits throughout, so that every processor gives the same bytes. The planes lie one after the
// other: Y (S, S), then Cb and Cr (ceil(S/2), ceil(S/2)). Chroma is interpolated linearly between the middles of its
// 2×2 pixels, as libjpeg's "fancy" upsampling does, and kept at 16 times its scale until it meets Y.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"

namespace {

using Byte = std::uint8_t;
using Short = std::int16_t;

constexpr Index BLOCK = 1024;  // columns whose chroma is kept, even
constexpr Index LANES = 32;    // columns at a time; buffers are so much longer than what is in them

// Coefficients of ITU-R BT.601 (as in JFIF) times 2**14; chroma comes times 2**8 and the high half of a product is
// kept, so a term is in 64ths of a grey level.
constexpr Short RED_CR = 22970, GREEN_CB = -5638, GREEN_CR = -11700, BLUE_CB = 29032;

inline Short term(Short chroma, Short coefficient) { return Short((std::int32_t(chroma) * coefficient) >> 16); }
inline Byte level(std::int32_t sum) { return Byte(std::min(std::max(Short(sum) >> 6, 0), 255)); }

// A row of chroma, of a plane `half` wide, at 4 times its scale over 2n columns of pixels from 2 * first on.
void spread(const Byte* row, Index first, Index n, Index half, Short* to) {
  Byte near[BLOCK / 2 + 3 + LANES];  // with a column more on each side, the outermost repeated at the edges
  near[0] = row[std::max<Index>(first - 1, 0)];
  std::memcpy(near + 1, row + first, std::size_t(n));
  std::memset(near + 1 + n, row[std::min(first + n, half - 1)], LANES + 1);
  for (Index k = 0; k < n; k += LANES) {
    const Byte* from = near + k;
    Short* out = to + 2 * k;
#pragma omp simd
    for (Index i = 0; i < LANES; ++i) {
      out[2 * i] = Short(3 * from[i + 1] + from[i]);
      out[2 * i + 1] = Short(3 * from[i + 1] + from[i + 2]);
    }
  }
}

// The two rows of Cb and Cr that are next to a row of pixels, spread over a block of its columns.
struct Chroma {
  Short rows[2][2][BLOCK + 2 + 2 * LANES] = {};  // of an even or odd row: Cb, Cr
  Index kept[2] = {-1, -1};

  const Short (*row(const Byte* cb, Index y, Index first, Index n, Index half))[BLOCK + 2 + 2 * LANES] {
    auto& to = rows[y % 2];
    if (kept[y % 2] != y) {
      spread(cb + y * half, first, n, half, to[0]);
      spread(cb + (half + y) * half, first, n, half, to[1]);
      kept[y % 2] = y;
    }
    return to;
  }
};

// LANES pixels, whose chroma is 3 : 1 that of the nearer row.
inline void colour(const Byte* y, const Short* cb, const Short* far_cb, const Short* cr, const Short* far_cr,
                   Byte* out) {
  Byte red[LANES], green[LANES], blue[LANES];
#pragma omp simd
  for (Index i = 0; i < LANES; ++i) {
    const Short base = Short(64 * y[i] + 32);
    const Short b = Short((3 * cb[i] + far_cb[i] - 16 * 128) * 16), r = Short((3 * cr[i] + far_cr[i] - 16 * 128) * 16);
    red[i] = level(base + term(r, RED_CR));
    green[i] = level(base + term(b, GREEN_CB) + term(r, GREEN_CR));
    blue[i] = level(base + term(b, BLUE_CB));
  }
#pragma omp simd
  for (Index i = 0; i < LANES; ++i) out[3 * i] = red[i], out[3 * i + 1] = green[i], out[3 * i + 2] = blue[i];
}

}  // namespace

// The crop at (top, left) of a square of `side` → out (rows, columns, 3).
KERNEL(ycbcr_crop)(const Byte* planes, Index side, Index top, Index left, Index rows, Index columns, Byte* out) {
  const Index half = (side + 1) / 2, end = left + columns;
  const Byte* cb = planes + side * side;  // Cr follows it
  for (Index at = left; at < end; at += BLOCK) {
    const Index count = std::min(BLOCK, end - at), first = at / 2, n = (at + count - 1) / 2 + 1 - first;
    const Index odd = at % 2, whole = count - count % LANES;
    Chroma chroma;
    for (Index row = top; row < top + rows; ++row) {
      const Index y = row / 2, next = std::min(std::max<Index>(y + (row % 2 ? 1 : -1), 0), half - 1);
      const auto *near = chroma.row(cb, y, first, n, half), *far = chroma.row(cb, next, first, n, half);
      const Byte* luma = planes + row * side + at;
      Byte* to = out + ((row - top) * columns + at - left) * 3;
      const auto pixels = [&](const Byte* from, Index i, Byte* into) {
        const Index k = i + odd;
        colour(from, near[0] + k, far[0] + k, near[1] + k, far[1] + k, into);
      };
      for (Index i = 0; i < whole; i += LANES) pixels(luma + i, i, to + 3 * i);
      if (whole < count) {
        Byte last[LANES] = {}, rgb[3 * LANES];
        std::memcpy(last, luma + whole, std::size_t(count - whole));
        pixels(last, whole, rgb);
        std::memcpy(to + 3 * whole, rgb, std::size_t(3 * (count - whole)));
      }
    }
  }
  return 0;
}
