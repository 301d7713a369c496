// What prediction needs beside convolution, products, normalization and pooling: crops of uint8 squares, locally-connected
// layers, nonlinearities, flattening and softmax. Maps are channels-last, float32 or bfloat16, computed in float32.

#include "vector.h"

namespace {

inline void put(float& to, float from) { to = from; }
inline void put(Bfloat16& to, float from) { to = to_bfloat16(from); }

// ---- crops ----------------------------------------------------------------------------------------------------------

constexpr Index PIXELS = 16;  // at a time

// A row of pixels less those of the mean, times three factors; from right to left where mirrored.
template <class To>
void crop_row(const std::uint8_t* from, const float* mean, const float* factors, bool mirror, Index pixels, To* to) {
  for (Index first = 0; first < pixels; first += PIXELS, from += PIXELS * 3, mean += PIXELS * 3) {
    const Index count = std::min(PIXELS, pixels - first);
    To values[PIXELS * 3];
    if (count == PIXELS) {
      for (Index i = 0; i < PIXELS * 3; ++i) put(values[i], (float(from[i]) - mean[i]) * factors[i]);
    } else {
      for (Index i = 0; i < count * 3; ++i) put(values[i], (float(from[i]) - mean[i]) * factors[i]);
    }
    if (!mirror) {
      std::memcpy(to + first * 3, values, std::size_t(count * 3) * sizeof(To));
    } else {
      To* at = to + (pixels - 1 - first) * 3;
      for (Index i = 0; i < count; ++i, at -= 3)
        for (Index j = 0; j < 3; ++j) at[j] = values[i * 3 + j];
    }
  }
}

// ---- locally-connected layers ---------------------------------------------------------------------------------------

struct Local {
  Index images, rows, columns, maps, size, pad, out_rows, out_columns, kernels;
};

constexpr Index TOGETHER = 16;  // images whose patches are held at once

// The patches of one place in several images: (images, size, size, maps), zeros outside the maps.
template <class T> void gather(const Local& s, const T* x, Index images, Index place, float* to) {
  const Index top = place / s.out_columns - s.pad, left = place % s.out_columns - s.pad, C = s.maps;
  for (Index image = 0; image < images; ++image)
    for (Index row = top; row < top + s.size; ++row)
      for (Index column = left; column < left + s.size; ++column, to += C) {
        const bool inside = row >= 0 && row < s.rows && column >= 0 && column < s.columns;
        const T* from = x + ((image * s.rows + row) * s.columns + column) * C;
        for (Index c = 0; c < C; c += LANES) store(to + c, inside ? load(from + c, C - c < LANES ? C - c : LANES) : Vector{},
                                                   C - c < LANES ? C - c : LANES);
      }
}

// R patches by two vectors of kernels.
template <class T, int R>
void multiply(const float* patches, Index length, const T* weights, Index kernels, Index left, const float* bias,
              bool relu, T* out, Index step) {
  const Index counts[] = {std::min(left, LANES), std::max<Index>(0, std::min(left - LANES, LANES))};
  Vector sum[R][2] = {};
  for (Index i = 0; i < length; ++i, weights += kernels) {
    const Vector own = load(weights, counts[0]), next = load(weights + LANES, counts[1]);
    for (int r = 0; r < R; ++r) {
      const float value = patches[r * length + i];
      sum[r][0] += value * own;
      sum[r][1] += value * next;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < 2; ++v) {
      const Vector value = sum[r][v] + load(bias + v * LANES, counts[v]);
      store(out + r * step + v * LANES, relu ? rectified(value) : value, counts[v]);
    }
}

template <class T>
void local_place(const Local& s, const T* x, const T* weights, const float* bias, bool relu, T* out, Index place,
                 float* patches) {
  const Index length = s.size * s.size * s.maps, places = s.out_rows * s.out_columns, step = places * s.kernels;
  for (Index first = 0; first < s.images; first += TOGETHER) {
    const Index images = std::min(TOGETHER, s.images - first);
    gather(s, x + first * s.rows * s.columns * s.maps, images, place, patches);
    for (Index column = 0; column < s.kernels; column += 2 * LANES) {
      const T* own = weights + place * length * s.kernels + column;
      const float* start = bias + place * s.kernels + column;
      T* to = out + first * step + place * s.kernels + column;
      Index image = 0;
      for (; image + 4 <= images; image += 4)
        multiply<T, 4>(patches + image * length, length, own, s.kernels, s.kernels - column, start, relu,
                       to + image * step, step);
      for (; image < images; ++image)
        multiply<T, 1>(patches + image * length, length, own, s.kernels, s.kernels - column, start, relu,
                       to + image * step, step);
    }
  }
}

// ---- element by element ---------------------------------------------------------------------------------------------

// A quotient of polynomials, within a few units of the last place; beyond its range tanh is ±1 in float32.
inline Vector tangent(Vector x) {
  constexpr float most = 7.99881172180175781f;
  x = x > most ? Vector{} + most : x;
  x = x < -most ? Vector{} - most : x;
  const Vector xx = x * x;
  Vector above = xx * -2.76076847742355e-16f + 2.00018790482477e-13f;
  above = above * xx - 8.60467152213735e-11f;
  above = above * xx + 5.12229709037114e-08f;
  above = above * xx + 1.48572235717979e-05f;
  above = above * xx + 6.37261928875436e-04f;
  above = (above * xx + 4.89352455891786e-03f) * x;
  Vector below = xx * 1.19825839466702e-06f + 1.18534705686654e-04f;
  below = below * xx + 2.26843463243900e-03f;
  below = below * xx + 4.89352518554385e-03f;
  return above / below;
}

// e to the power of numbers of at most 0, within a few units of the last place.
inline Vector exponential(Vector x) {
  const auto small = x < -87.0f;
  const Vector n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;  // rounded to whole numbers
  const Vector f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector y = f * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * f + 8.3334519073e-3f;
  y = y * f + 4.1665795894e-2f;
  y = y * f + 1.6666665459e-1f;
  y = y * f + 5.0000001201e-1f;
  y = y * f * f + f + 1.0f;
  const Whole power = (__builtin_convertvector(small ? Vector{} : n, Whole) + 127) << 23;
  return small ? Vector{} : y * (Vector)power;
}

template <class T, class Function> void map_all(T* x, Index first, Index last, Function function) {
  for (Index i = first; i < last; i += LANES) {
    const Index count = std::min(LANES, last - i);
    store(x + i, function(load(x + i, count)), count);
  }
}

template <class Function> int elementwise(void* data, int dtype, Index count, Index threads, Function function) {
  return !typed(dtype, [&](auto* type) {
    auto* x = static_cast<decltype(type)>(data);
    const Index units = (count + 1023) / 1024;
    return parallel(units, count, threads, [&](Index first, Index last) {
      map_all(x, first * 1024, std::min(last * 1024, count), function);
    });
  });
}

void softmax_row(float* x, Index n) {
  float most = x[0], total = 0;
  for (Index i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
  map_all(x, 0, n, [&](Vector v) { return exponential(v - most); });
  for (Index i = 0; i < n; ++i) total += x[i];
  for (Index i = 0; i < n; ++i) x[i] /= total;
}

template <class T> void flatten_maps(const T* __restrict x, T* __restrict out, Index places, Index maps, Index first,
                                     Index last) {
  for (Index c = first; c < last; ++c)
    for (Index place = 0; place < places; ++place) out[c * places + place] = x[place * maps + c];
}

}  // namespace

// One part of every square (images, side, side, 3), less the mean image (side, side, 3), times three factors; either may
// be null. `shape` is images, side, top, left, whether it is mirrored, rows and columns. 0 where done, as all here.
KERNEL(crop)(const Index* shape, const std::uint8_t* squares, const float* mean, const float* scale, void* out,
             int dtype, Index threads) {
  const Index images = shape[0], side = shape[1], top = shape[2], left = shape[3], rows = shape[5], columns = shape[6];
  const bool mirror = shape[4] != 0;
  float factors[PIXELS * 3];
  for (Index i = 0; i < PIXELS * 3; ++i) factors[i] = scale ? scale[i % 3] : 1.0f;
  Memory zeros(mean ? 1 : columns * 3 * 4);
  if (!zeros.get()) return 1;
  if (!mean) std::memset(zeros.get(), 0, std::size_t(columns * 3 * 4));
  return !typed(dtype, [&](auto* type) {
    auto* to = static_cast<decltype(type)>(out);
    return parallel(images * rows, images * rows * columns * 3, threads, [&](Index first, Index last) {
      for (Index unit = first; unit < last; ++unit) {
        const Index row = top + unit % rows, at = (row * side + left) * 3;
        const float* own = mean ? mean + at : reinterpret_cast<const float*>(zeros.get());
        crop_row(squares + unit / rows * side * side * 3 + at, own, factors, mirror, columns, to + unit * columns * 3);
      }
    });
  });
}

// x (images, rows, columns, maps), weights (places, size, size, maps, kernels), both of `dtype`, bias (places, kernels)
// float32 -> out (images, places, kernels), rectified where `relu`. `shape` is that of Local.
KERNEL(local)(const Index* shape, int dtype, const void* x, const void* weights, const float* bias, void* out, int relu,
              Index threads) {
  Local s;
  std::memcpy(static_cast<void*>(&s), shape, sizeof s);
  const Index places = s.out_rows * s.out_columns, length = s.size * s.size * s.maps;
  return !typed(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return parallel(places, s.images * places * length * s.kernels, threads, [&](Index first, Index last) {
      Memory patches(std::min(TOGETHER, s.images) * length * 4);
      if (!patches.get()) out_of_memory();
      for (Index place = first; place < last; ++place)
        local_place(s, static_cast<const T*>(x), static_cast<const T*>(weights), bias, relu != 0, static_cast<T*>(out),
                    place, reinterpret_cast<float*>(patches.get()));
    });
  });
}

// Maps (images, places, maps) -> (images, maps, places), elements of 1, 2 or 4 bytes.
KERNEL(flatten)(const void* x, void* out, int bytes, Index images, Index places, Index maps, Index threads) {
  return !parallel(images * maps, images * maps * places, threads, [&](Index first, Index last) {
    for (Index unit = first; unit < last;) {
      const Index image = unit / maps, c = unit % maps, end = std::min(maps, c + last - unit), at = image * maps * places;
      if (bytes == 1)
        flatten_maps(static_cast<const std::uint8_t*>(x) + at, static_cast<std::uint8_t*>(out) + at, places, maps, c, end);
      else if (bytes == 2)
        flatten_maps(static_cast<const std::uint16_t*>(x) + at, static_cast<std::uint16_t*>(out) + at, places, maps, c, end);
      else
        flatten_maps(static_cast<const std::uint32_t*>(x) + at, static_cast<std::uint32_t*>(out) + at, places, maps, c, end);
      unit += end - c;
    }
  });
}

// In place.
KERNEL(relu)(void* x, int dtype, Index count, Index threads) {
  return elementwise(x, dtype, count, threads, [](Vector v) { return rectified(v); });
}

// In place.
KERNEL(tanh)(void* x, int dtype, Index count, Index threads) {
  return elementwise(x, dtype, count, threads, [](Vector v) { return tangent(v); });
}

// Rows of float32 logits, in place.
KERNEL(softmax)(float* x, Index rows, Index columns, Index threads) {
  return !parallel(rows, rows * columns, threads, [&](Index first, Index last) {
    for (Index row = first; row < last; ++row) softmax_row(x + row * columns, columns);
  });
}
