// Pooling of channels-last maps, max forward and backward and average forward, in portable C++17.
//
// Where it is asked to, max keeps for each output the place of its maximum within the window, two bytes. Backward then gathers: each
// input adds up the gradients of the few windows that chose it and is written once.

#include <cstdint>
#include <cstring>

#include "numbers.h"
#include "parallel.h"

namespace {

constexpr Index LANES = 16;
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef std::int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef std::uint32_t Bits __attribute__((vector_size(LANES * 4)));
typedef std::uint16_t Words __attribute__((vector_size(LANES * 2)));

template <class Vector> inline Vector load(const void* from) {
  Vector to;
  std::memcpy(&to, from, sizeof to);
  return to;
}

// A type's arithmetic: LANES numbers at a time, and one.
struct Float32 {
  using Number = float;
  static Floats read(const float* p) { return load<Floats>(p); }
  static void write(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }
  static float read_one(float p) { return p; }
  static float write_one(float v) { return v; }
};

struct BrainFloat {
  using Number = Bfloat16;
  static Floats read(const Bfloat16* p) {
    Bits wide = __builtin_convertvector(load<Words>(p), Bits) << 16;
    return load<Floats>(&wide);
  }
  static void write(Bfloat16* p, Floats v) {
    Words rounded = __builtin_convertvector(round_to_bfloat16(load<Bits>(&v)), Words);
    std::memcpy(p, &rounded, sizeof rounded);
  }
  static float read_one(Bfloat16 p) { return from_bfloat16(p); }
  static Bfloat16 write_one(float v) { return to_bfloat16(v); }
};

struct Pool {
  Index images, rows, columns, maps, size, stride, out_rows, out_columns;
};

// One row of outputs: every window starts inside the maps and is cut at their right and bottom edges.
template <class Type, bool PLACES>
void forward_row(const Pool& pool, const typename Type::Number* x, typename Type::Number* out, std::uint16_t* places,
                 Index unit) {
  const Index image = unit / pool.out_rows, p = unit % pool.out_rows, top = p * pool.stride;
  const Index high = std::min(pool.size, pool.rows - top), C = pool.maps;
  const auto* above = x + (image * pool.rows + top) * pool.columns * C;
  for (Index q = 0; q < pool.out_columns; ++q) {
    const Index left = q * pool.stride, wide = std::min(pool.size, pool.columns - left);
    const auto* corner = above + left * C;
    const Index at = (unit * pool.out_columns + q) * C;
    Index c = 0;
    for (; c + LANES <= C; c += LANES) {
      Floats best = Type::read(corner + c);
      Whole place = Whole{};
      const auto meet = [&](Index r, Index s, Index size) {
        const Floats v = Type::read(corner + (r * pool.columns + s) * C + c);
        const Whole take = (v > best) | (v != v);  // a NaN wins, as in torch
        best = take ? v : best;
        if (PLACES) place = take ? Whole{} + std::int32_t(r * size + s) : place;
      };
      if (high == 3 && wide == 3 && pool.size == 3) {  // the paper's window, unrolled
        for (Index r = 0; r < 3; ++r)
          for (Index s = 0; s < 3; ++s) meet(r, s, 3);
      } else {
        for (Index r = 0; r < high; ++r)
          for (Index s = 0; s < wide; ++s) meet(r, s, pool.size);
      }
      Type::write(out + at + c, best);
      if (PLACES) {
        const Words narrow = __builtin_convertvector(place, Words);
        std::memcpy(places + at + c, &narrow, sizeof narrow);
      }
    }
    for (; c < C; ++c) {
      float best = Type::read_one(corner[c]);
      std::uint16_t place = 0;
      for (Index r = 0; r < high; ++r) {
        for (Index s = 0; s < wide; ++s) {
          const float v = Type::read_one(corner[(r * pool.columns + s) * C + c]);
          if (v > best || v != v) best = v, place = std::uint16_t(r * pool.size + s);
        }
      }
      out[at + c] = Type::write_one(best);
      if (PLACES) places[at + c] = place;
    }
  }
}

// One row of averages of what is inside each window.
template <class Type>
void average_row(const Pool& pool, const typename Type::Number* x, typename Type::Number* out, Index unit) {
  const Index image = unit / pool.out_rows, top = unit % pool.out_rows * pool.stride, C = pool.maps;
  const Index high = std::min(pool.size, pool.rows - top), line = pool.columns * C;
  for (Index q = 0; q < pool.out_columns; ++q) {
    const Index left = q * pool.stride, wide = std::min(pool.size, pool.columns - left);
    const auto* corner = x + (image * pool.rows + top) * line + left * C;
    auto* to = out + (unit * pool.out_columns + q) * C;
    const float count = float(high * wide);
    Index c = 0;
    for (; c + LANES <= C; c += LANES) {
      Floats sum = Floats{};
      for (Index r = 0; r < high; ++r)
        for (Index s = 0; s < wide; ++s) sum += Type::read(corner + r * line + s * C + c);
      Type::write(to + c, sum / count);
    }
    for (; c < C; ++c) {
      float sum = 0;
      for (Index r = 0; r < high; ++r)
        for (Index s = 0; s < wide; ++s) sum += Type::read_one(corner[r * line + s * C + c]);
      to[c] = Type::write_one(sum / count);
    }
  }
}

// One row of the maps: what the windows over each position send to it.
template <class Type>
void backward_row(const Pool& pool, const typename Type::Number* grad, const std::uint16_t* places,
                  typename Type::Number* out, Index unit) {
  const Index image = unit / pool.rows, h = unit % pool.rows, C = pool.maps;
  const auto first = [&](Index at) { return at < pool.size ? 0 : (at - pool.size) / pool.stride + 1; };
  const Index p0 = first(h), p1 = std::min(h / pool.stride + 1, pool.out_rows);
  for (Index w = 0; w < pool.columns; ++w) {
    const Index q0 = first(w), q1 = std::min(w / pool.stride + 1, pool.out_columns);
    auto* to = out + (unit * pool.columns + w) * C;
    Index c = 0;
    for (; c + LANES <= C; c += LANES) {
      Floats sum = Floats{};
      for (Index p = p0; p < p1; ++p) {
        for (Index q = q0; q < q1; ++q) {
          const Index at = ((image * pool.out_rows + p) * pool.out_columns + q) * C + c;
          const auto here = std::int32_t((h - p * pool.stride) * pool.size + w - q * pool.stride);
          const Whole chosen = __builtin_convertvector(load<Words>(places + at), Whole) == here;
          sum += chosen ? Type::read(grad + at) : Floats{};
        }
      }
      Type::write(to + c, sum);
    }
    for (; c < C; ++c) {
      float sum = 0;
      for (Index p = p0; p < p1; ++p) {
        for (Index q = q0; q < q1; ++q) {
          const Index at = ((image * pool.out_rows + p) * pool.out_columns + q) * C + c;
          if (places[at] == (h - p * pool.stride) * pool.size + w - q * pool.stride) sum += Type::read_one(grad[at]);
        }
      }
      to[c] = Type::write_one(sum);
    }
  }
}

template <class Body> int rows_of_outputs(const Index* shape, int dtype, Index threads, Body body) {
  Pool pool;
  std::memcpy(&pool, shape, sizeof pool);
  const Index units = pool.images * pool.out_rows;
  return !parallel(units, units * pool.out_columns * pool.maps, threads, [&](Index first, Index last) {
    for (Index unit = first; unit < last; ++unit) {
      if (dtype == BFLOAT16) body(pool, BrainFloat(), unit);
      else body(pool, Float32(), unit);
    }
  });
}

}  // namespace

// `shape` is images, rows, columns, maps, size, stride, rows and columns of the output; `dtype` is float32 or bfloat16.
// `places` may be null.
KERNEL(pool_forward)(const Index* shape, int dtype, const void* x, void* out, std::uint16_t* places, Index threads) {
  return rows_of_outputs(shape, dtype, threads, [&](const Pool& pool, auto type, Index unit) {
    using Type = decltype(type);
    const auto* from = static_cast<const typename Type::Number*>(x);
    auto* to = static_cast<typename Type::Number*>(out);
    if (places) forward_row<Type, true>(pool, from, to, places, unit);
    else forward_row<Type, false>(pool, from, to, places, unit);
  });
}

KERNEL(pool_average)(const Index* shape, int dtype, const void* x, void* out, Index threads) {
  return rows_of_outputs(shape, dtype, threads, [&](const Pool& pool, auto type, Index unit) {
    using Type = decltype(type);
    average_row<Type>(pool, static_cast<const typename Type::Number*>(x), static_cast<typename Type::Number*>(out), unit);
  });
}

KERNEL(pool_backward)(const Index* shape, int dtype, const void* grad, const std::uint16_t* places, void* out,
                          Index threads) {
  Pool pool;
  std::memcpy(&pool, shape, sizeof pool);
  const Index units = pool.images * pool.rows;
  return !parallel(units, units * pool.columns * pool.maps, threads, [&](Index first, Index last) {
    for (Index unit = first; unit < last; ++unit) {
      if (dtype == BFLOAT16)
        backward_row<BrainFloat>(pool, static_cast<const std::uint16_t*>(grad), places, static_cast<std::uint16_t*>(out),
                               unit);
      else
        backward_row<Float32>(pool, static_cast<const float*>(grad), places, static_cast<float*>(out), unit);
    }
  });
}
