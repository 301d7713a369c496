// Sums over the pixels of RGB images, for their covariance, in portable C++17 behind a plain C interface.

#include <algorithm>
#include <cstdint>

#include "parallel.h"

// Adds to `sums` the products rr, rg, rb, gg, gb, bb over `pixels` pixels (3 bytes each), of values less `centre`.
KERNEL(colour_products)(const std::uint8_t* images, Index pixels, int centre, std::int64_t* sums) {
  constexpr Index PIECE = 32768;  // times 255 squared, this fits 32 bits
  for (Index first = 0; first < pixels; first += PIECE) {
    const std::uint8_t* p = images + first * 3;
    const Index n = std::min(PIECE, pixels - first);
    std::int32_t rr = 0, rg = 0, rb = 0, gg = 0, gb = 0, bb = 0;
#pragma omp simd reduction(+ : rr, rg, rb, gg, gb, bb)
    for (Index i = 0; i < n; ++i) {
      const std::int32_t r = p[3 * i] - centre, g = p[3 * i + 1] - centre, b = p[3 * i + 2] - centre;
      rr += r * r, rg += r * g, rb += r * b, gg += g * g, gb += g * b, bb += b * b;
    }
    const std::int32_t part[6] = {rr, rg, rb, gg, gb, bb};
    for (int k = 0; k < 6; ++k) sums[k] += part[k];
  }
  return 0;
}
