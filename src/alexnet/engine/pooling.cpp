// Pooling of channels-last maps, max and average, forward and backward.
//
// Where it is asked to, max keeps for each output the place of its maximum within the window, two bytes. Backward
// gathers: each input adds up the gradients of the few windows that chose it, or their shares, and is written once.

#include "vector.h"

namespace {

struct Pool {
  Index images, rows, columns, maps, size, stride, out_rows, out_columns;
};

// One row of outputs: every window starts inside the maps and is cut at their right and bottom edges.
template <class T, bool PLACES>
void forward_row(const Pool& pool, const T* x, T* out, std::uint16_t* places, Index unit) {
  const Index image = unit / pool.out_rows, p = unit % pool.out_rows, top = p * pool.stride;
  const Index high = std::min(pool.size, pool.rows - top), C = pool.maps;
  const T* above = x + (image * pool.rows + top) * pool.columns * C;
  for (Index q = 0; q < pool.out_columns; ++q) {
    const Index left = q * pool.stride, wide = std::min(pool.size, pool.columns - left);
    const T* corner = above + left * C;
    const Index at = (unit * pool.out_columns + q) * C;
    for (Index c = 0; c < C; c += LANES) {
      const Index count = std::min(LANES, C - c);
      Vector best = load(corner + c, count);
      Whole place = Whole{};
      const auto meet = [&](Index r, Index s, Index size) {
        const Vector v = load(corner + (r * pool.columns + s) * C + c, count);
        const Whole take = (v > best) | (v != v);  // a NaN wins, as in torch
        best = take ? v : best;
        if (PLACES) place = take ? Whole{} + std::int32_t(r * size + s) : place;
      };
      if (high == 3 && wide == 3 && pool.size == 3) {  // the paper's window, unrolled
#pragma GCC unroll 3
        for (Index r = 0; r < 3; ++r)
#pragma GCC unroll 3
          for (Index s = 0; s < 3; ++s) meet(r, s, 3);
      } else {
        for (Index r = 0; r < high; ++r)
          for (Index s = 0; s < wide; ++s) meet(r, s, pool.size);
      }
      store(out + at + c, best, count);
      if (PLACES) store_halves(places + at + c, __builtin_convertvector(place, Bits16), count);
    }
  }
}

// One row of averages of what is inside each window.
template <class T> void average_row(const Pool& pool, const T* x, T* out, Index unit) {
  const Index image = unit / pool.out_rows, top = unit % pool.out_rows * pool.stride, C = pool.maps;
  const Index high = std::min(pool.size, pool.rows - top), line = pool.columns * C;
  for (Index q = 0; q < pool.out_columns; ++q) {
    const Index left = q * pool.stride, wide = std::min(pool.size, pool.columns - left);
    const T* corner = x + (image * pool.rows + top) * line + left * C;
    T* to = out + (unit * pool.out_columns + q) * C;
    for (Index c = 0; c < C; c += LANES) {
      const Index count = std::min(LANES, C - c);
      Vector sum{};
      const auto add = [&](Index r, Index s) { sum += load(corner + r * line + s * C + c, count); };
      if (high == 3 && wide == 3) {  // the paper's window, unrolled
#pragma GCC unroll 3
        for (Index r = 0; r < 3; ++r)
#pragma GCC unroll 3
          for (Index s = 0; s < 3; ++s) add(r, s);
      } else {
        for (Index r = 0; r < high; ++r)
          for (Index s = 0; s < wide; ++s) add(r, s);
      }
      store(to + c, sum / float(high * wide), count);
    }
  }
}

// One row of the maps: what the windows over each position send to it. Without places they are those of averages.
template <class T, bool PLACES>
void backward_row(const Pool& pool, const T* grad, const std::uint16_t* places, T* out, Index unit) {
  const Index image = unit / pool.rows, h = unit % pool.rows, C = pool.maps;
  const auto first = [&](Index at) { return at < pool.size ? 0 : (at - pool.size) / pool.stride + 1; };
  const Index p0 = first(h), p1 = std::min(h / pool.stride + 1, pool.out_rows);
  for (Index w = 0; w < pool.columns; ++w) {
    const Index q0 = first(w), q1 = std::min(w / pool.stride + 1, pool.out_columns);
    T* to = out + (unit * pool.columns + w) * C;
    for (Index c = 0; c < C; c += LANES) {
      const Index count = std::min(LANES, C - c);
      Vector sum{};
      for (Index p = p0; p < p1; ++p) {
        for (Index q = q0; q < q1; ++q) {
          const Index at = ((image * pool.out_rows + p) * pool.out_columns + q) * C + c;
          const Vector sent = load(grad + at, count);
          if constexpr (PLACES) {
            const auto here = std::int32_t((h - p * pool.stride) * pool.size + w - q * pool.stride);
            sum += (Whole)widen(load_halves(places + at, count)) == here ? sent : Vector{};
          } else {
            const Index high = std::min(pool.size, pool.rows - p * pool.stride);
            sum += sent * (1 / float(high * std::min(pool.size, pool.columns - q * pool.stride)));
          }
        }
      }
      store(to + c, sum, count);
    }
  }
}

Pool pool_of(const Index* shape) {
  Pool pool;
  std::memcpy(&pool, shape, sizeof pool);
  return pool;
}

}  // namespace

// `shape` is images, rows, columns, maps, size, stride, rows and columns of the output; `dtype` is float32 or bfloat16.
// `places` may be null.
KERNEL(pool_forward)(const Index* shape, int dtype, const void* x, void* out, std::uint16_t* places, Index threads) {
  const Pool pool = pool_of(shape);
  const Index units = pool.images * pool.out_rows;
  return !typed(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return parallel(units, units * pool.out_columns * pool.maps, threads, [&](Index first, Index last) {
      const auto row = places ? forward_row<T, true> : forward_row<T, false>;
      for (Index unit = first; unit < last; ++unit) row(pool, static_cast<const T*>(x), static_cast<T*>(out), places, unit);
    });
  });
}

KERNEL(pool_average)(const Index* shape, int dtype, const void* x, void* out, Index threads) {
  const Pool pool = pool_of(shape);
  const Index units = pool.images * pool.out_rows;
  return !typed(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return parallel(units, units * pool.out_columns * pool.maps, threads, [&](Index first, Index last) {
      for (Index unit = first; unit < last; ++unit) average_row(pool, static_cast<const T*>(x), static_cast<T*>(out), unit);
    });
  });
}

// Of averages where `places` is null.
KERNEL(pool_backward)(const Index* shape, int dtype, const void* grad, const std::uint16_t* places, void* out,
                          Index threads) {
  const Pool pool = pool_of(shape);
  const Index units = pool.images * pool.rows;
  return !typed(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return parallel(units, units * pool.columns * pool.maps, threads, [&](Index first, Index last) {
      const auto row = places ? backward_row<T, true> : backward_row<T, false>;
      for (Index unit = first; unit < last; ++unit) row(pool, static_cast<const T*>(grad), places, static_cast<T*>(out), unit);
    });
  });
}
