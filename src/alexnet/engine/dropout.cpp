// Which units dropout keeps: Philox4x32-10 (Salmon et al. 2011) keyed by image, layer and unit, portable C++17.

#include <cstdint>

#include "parallel.h"

namespace {

using Word = std::uint32_t;

struct Words {
  Word a, b, c, d;
};

inline Words philox(Words x, Word key0, Word key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p = std::uint64_t(0xD2511F53u) * x.a, q = std::uint64_t(0xCD9E8D57u) * x.c;
    x = {Word(q >> 32) ^ x.b ^ key0, Word(q), Word(p >> 32) ^ x.d ^ key1, Word(p)};
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
  return x;
}

constexpr Index BLOCKS = 64;  // of four units, at a time

}  // namespace

// keep (images, units): 1 where the word of unit first + u of an image is `threshold` or more, else 0. 0 where done.
KERNEL(dropout)(std::uint8_t* keep, const std::int64_t* positions, Index images, Index units, Index first,
                    Index seed, Index epoch, Index layer, Index threshold, Index threads) {
  const Index start = first / 4, end = (first + units + 3) / 4;
  const Word limit = Word(threshold), own = Word(seed), high = Word(std::uint64_t(seed) >> 32);
  return !parallel(images, images * units, threads, [&](Index from, Index to) {
    std::uint8_t kept[4 * BLOCKS];
    for (Index image = from; image < to; ++image) {
      for (Index block = start; block < end; block += BLOCKS) {
#pragma omp simd
        for (Index i = 0; i < BLOCKS; ++i) {
          const Words w = philox({Word(block + i), Word(positions[image]), Word(epoch), high}, own, Word(layer));
          kept[4 * i] = w.a >= limit, kept[4 * i + 1] = w.b >= limit;
          kept[4 * i + 2] = w.c >= limit, kept[4 * i + 3] = w.d >= limit;
        }
        const Index low = std::max(first, 4 * block), last = std::min(first + units, 4 * (block + BLOCKS));
        for (Index u = low; u < last; ++u) keep[image * units + u - first] = kept[u - 4 * block];
      }
    }
  });
}
