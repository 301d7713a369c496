// Convolution of channels-last maps, forward and backward to the maps.
//
// One operand is read where it lies and broadcast, unit by unit; the other is packed once into rows of vectors. No
// patches are copied out: an image is copied once with its zeros around it, and kernels walk over it.

#include "convolution.h"

namespace {

// Where weight (column, ky, kx, j) of a group lies, `column` an output map and j an input map of the group.
struct Weights {
  const void* at;
  int dtype;
  Index group, column, row, next, j, first;  // strides; `first`: of (ky, kx) = (0, 0)
};

// [group][panel][ky][kx][j], whole rows of a kernel in one segment where there is one group.
template <class A>
void pack_weights(Unit* to, const Weights& w, const Shape& s, const Panels& panels, Index first, Index last) {
  constexpr Index FOLD = A::FOLD;
  using Number = typename A::Number;
  const bool whole = s.groups == 1;
  const Index maps = s.own_maps(), along = whole ? s.size * maps : maps, units = (along + FOLD - 1) / FOLD;
  const Index segments = whole ? s.size : s.size * s.size, block = segments * units * panels.width();
  auto fill = [&](auto* source) {
    for (Index unit = first; unit < last; ++unit) {
      const Index group = unit / panels.count, column = unit % panels.count * panels.width();
      const Index columns = std::min(panels.width(), s.own_kernels() - column);
      Number* out = reinterpret_cast<Number*>(to + unit * block);
      std::memset(static_cast<void*>(out), 0, std::size_t(block) * sizeof(Unit));
      for (Index segment = 0; segment < segments; ++segment)
        for (Index i = 0; i < along; ++i) {
          const Index ky = whole ? segment : segment / s.size, kx = whole ? i / maps : segment % s.size;
          auto* from = source + w.first + group * w.group + ky * w.row + kx * w.next + i % maps * w.j + column * w.column;
          Number* line = out + (segment * units + i / FOLD) * panels.width() * FOLD + i % FOLD;
          for (Index k = 0; k < columns; ++k) put(line[k * FOLD], from[k * w.column]);
        }
    }
  };
  if constexpr (std::is_same<A, Int8>::value) fill(static_cast<const std::int8_t*>(w.at));
  else if (w.dtype == BFLOAT16) fill(static_cast<const Bfloat16*>(w.at));
  else fill(static_cast<const float*>(w.at));
}

// The sizes of packed weights and of the images they walk over, for one arithmetic.
template <class A> struct Layout {
  using Number = typename A::Number;
  const Shape& s;
  Panels panels{s.own_kernels()};
  bool whole = s.groups == 1;
  Index maps = s.own_maps(), bytes = sizeof(Number);
  Index count = whole ? s.size : s.size * s.size;  // segments of a kernel
  Index units = ((whole ? s.size * maps : maps) + A::FOLD - 1) / A::FOLD;  // of a segment
  Index blocks = s.groups * panels.count;
  Index packed = blocks * count * units * panels.width();  // units of all weights
  Index line = s.columns() * s.c, filled = s.rows() * line, image = (filled + 63) / 64 * 64, places = s.p * s.q;
};

struct Correlation {
  Shape shape;
  const void *x, *gate;
  int x_dtype;
  const Unit* weights;
  const float* bias;
  void* out;
  bool relu;
  Quantizer quantizer = {};
  const float* scale = nullptr;  // of each kernel's sums, in int8
};

// `images` images from `start` on into `padded`, and zeros after them.
template <class A>
void pad_images(const Correlation& job, const Layout<A>& l, typename A::Number* padded, Index start, Index images) {
  const Shape& s = job.shape;
  for (Index i = 0; i < images; ++i) {
    const Index at = (start + i) * s.h * s.w * s.c;
    const auto pad = [&](auto* x, auto* gate) {
      pad_image(padded + i * l.image, x + at, gate ? gate + at : nullptr, s, job.quantizer);
    };
    if (job.x_dtype == BFLOAT16) pad(static_cast<const Bfloat16*>(job.x), static_cast<const Bfloat16*>(job.gate));
    else pad(static_cast<const float*>(job.x), static_cast<const float*>(job.gate));
    std::memset(static_cast<void*>(padded + i * l.image + l.filled), 0, std::size_t((l.image - l.filled) * l.bytes));
  }
  // The second number of a segment's last pair may lie past it; its weight is 0, but 0 times any bits may be NaN.
  std::memset(static_cast<void*>(padded + images * l.image), 0, std::size_t(64 * l.bytes));
}

// Outputs first to last of some images, by the kernels of one panel.
template <class A, int V, class Out>
void sweep(const Correlation& job, const Layout<A>& l, const typename A::Number* padded, const Index* segments,
           Index panel, Index first, Index last, Out* out) {
  constexpr int R = tall(V);
  const Shape& s = job.shape;
  const Index own = panel % l.panels.count * V * LANES, group = panel / l.panels.count;
  const Index columns = std::min<Index>(V * LANES, s.own_kernels() - own), kernel = group * s.own_kernels() + own;
  const Unit* b = job.weights + panel * l.count * l.units * V * LANES;
  Index left[V];
  Vector start_at[V], scale[V];
  for (int v = 0; v < V; ++v) {
    left[v] = std::min<Index>(std::max<Index>(columns - v * LANES, 0), LANES);
    start_at[v] = job.bias ? load(job.bias + kernel + v * LANES, left[v]) : Vector{};
    scale[v] = job.scale ? load(job.scale + kernel + v * LANES, left[v]) : Vector{};
  }
  const char* base = reinterpret_cast<const char*>(padded + group * l.maps);
  Index column = first % s.q, row = first / s.q % s.p, n = first / l.places;
  for (Index i = first; i < last; i += R) {
    const Index valid = std::min<Index>(R, last - i);
    const char* rows[R];
    for (int r = 0; r < R; ++r) {
      if (r >= valid) {
        rows[r] = rows[0];
        continue;
      }
      rows[r] = base + (n * l.image + row * s.stride * l.line + column * s.stride * s.c) * l.bytes;
      if (++column == s.q) {
        column = 0;
        if (++row == s.p) row = 0, ++n;
      }
    }
    alignas(64) Unit tile[R * V * LANES];
    walk_kernel<A, V, R>(rows, segments, l.count, l.units, b, tile);
    for (Index r = 0; r < valid; ++r) {
      Out* to = out + (i + r) * s.o + kernel;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vector value = finished(A(), tile + (r * V + v) * LANES, scale[v]) + start_at[v];
        if (job.relu) value = rectified(value);
        store(to + v * LANES, value, left[v]);
      }
    }
  }
}

template <class A, class Out> bool correlate(const Correlation& job, Index threads) {
  using Number = typename A::Number;
  const Shape& s = job.shape;
  const Layout<A> l{s};
  Memory table(l.count * Index(sizeof(Index)));
  if (!table.get()) return false;
  Index* segments = reinterpret_cast<Index*>(table.get());
  for (Index i = 0; i < l.count; ++i)
    segments[i] = (l.whole ? i * l.line : i / s.size * l.line + i % s.size * s.c) * l.bytes;
  const Index work = s.n * l.places * s.o * l.units, budget = 400 << 10;
  Out* out = static_cast<Out*>(job.out);
  const Index together =
      std::max<Index>(1, std::min({budget / (l.image * l.bytes), (s.n + threads - 1) / threads, Index(64)}));
  const Index pieces = (s.n + together - 1) / together;
  bool done = false;
  if (pieces >= threads) {  // each thread takes images, and all kernels to them
    with_vectors(l.panels.vectors, [&](auto vectors) {
      done = parallel(pieces, work, threads, [&](Index first, Index last) {
        Number* padded = reinterpret_cast<Number*>(scratch(0, (together * l.image + 64) * l.bytes));
        for (Index start = first * together; start < std::min(s.n, last * together); start += together) {
          const Index images = std::min(together, s.n - start);
          pad_images(job, l, padded, start, images);
          for (Index panel = 0; panel < l.blocks; ++panel)
            sweep<A, decltype(vectors)::value>(job, l, padded, segments, panel, 0, images * l.places,
                                               out + start * l.places * s.o);
        }
      });
    });
    return done;
  }
  // Few images: all are padded first, and each thread takes outputs of some kernels.
  Memory memory((s.n * l.image + 64) * l.bytes);
  if (!memory.get()) return false;
  Number* padded = reinterpret_cast<Number*>(memory.get());
  pad_images(job, l, padded, 0, s.n);
  with_vectors(l.panels.vectors, [&](auto vectors) {
    constexpr Index R = tall(decltype(vectors)::value);
    const Index all = s.n * l.places, cuts = std::max<Index>(1, 4 * threads / l.blocks);
    const Index step = ((all + cuts - 1) / cuts + R - 1) / R * R, runs = (all + step - 1) / step;
    done = parallel(l.blocks * runs, work, threads, [&](Index first, Index last) {
      for (Index unit = first; unit < last; ++unit) {
        const Index from = unit % runs * step;
        sweep<A, decltype(vectors)::value>(job, l, padded, segments, unit / runs, from, std::min(all, from + step), out);
      }
    });
  });
  return done;
}

template <class A> bool pack(Unit* to, const Shape& s, const Weights& w, Index threads) {
  const Layout<A> l{s};
  return parallel(l.blocks, l.packed, threads,
                  [&](Index first, Index last) { pack_weights<A>(to, w, s, l.panels, first, last); });
}

template <class A> bool pack_and_correlate(Correlation job, const Weights& w, Index threads) {
  Memory memory(Layout<A>{job.shape}.packed * Index(sizeof(Unit)));
  Unit* packed = reinterpret_cast<Unit*>(memory.get());
  job.weights = packed;
  return packed && pack<A>(packed, job.shape, w, threads) && correlate<A, typename A::Stored>(job, threads);
}

Weights weights_of(const Shape& s, const void* at, int dtype, bool channels_last) {
  const Index maps = s.own_maps(), kernel = s.size * s.size * maps;
  if (channels_last) return {at, dtype, s.own_kernels() * kernel, kernel, s.size * maps, maps, 1, 0};
  return {at, dtype, s.own_kernels() * kernel, kernel, s.size, 1, s.size * s.size, 0};
}

}  // namespace

// x (n, h, w, c), weights (o, size, size, c / groups) -> out (n, p, q, o), computed in `dtype`. 0 where done.
KERNEL(conv_forward)(const Index* shape, int dtype, const void* x, int x_dtype, const void* weights, int weights_dtype,
                     const float* bias, void* out, int relu, Index threads) {
  const Shape s = shape_of(shape);
  const Weights w = weights_of(s, weights, weights_dtype, true);
  const Correlation job{s, x, nullptr, x_dtype, nullptr, bias, out, relu != 0};
  if (dtype == BFLOAT16) return !pack_and_correlate<NativeBfloat16>(job, w, threads);
  return !pack_and_correlate<Float32>(job, w, threads);
}

// The gradient by the maps, stride 1: g (n, p, q, o), where `gate` (same shape, or null) is above zero -> (n, h, w, c).
KERNEL(conv_grad_input)(const Index* shape, int dtype, const void* g, const void* gate, const void* weights,
                        int weights_dtype, void* out, Index threads) {
  const Shape s = shape_of(shape);
  const Index maps = s.own_maps(), kernel = s.size * s.size * maps;
  const Shape turned{s.n, s.p, s.q, s.o, s.groups, s.c, s.size, 1, s.size - 1 - s.top, s.size - 1 - s.left, s.h, s.w};
  const Weights w{weights, weights_dtype, s.own_kernels() * kernel, 1, -s.size * maps, -maps, kernel,
                  (s.size * s.size - 1) * maps};
  const Correlation job{turned, g, gate, dtype, nullptr, nullptr, out, false};
  if (dtype == BFLOAT16) return !pack_and_correlate<NativeBfloat16>(job, w, threads);
  return !pack_and_correlate<Float32>(job, w, threads);
}

// Weights (o, c / groups, size, size), in int8 of that type, packed for `conv_packed`; with `to` null, only how many
// bytes that takes.
KERNEL(conv_pack)(const Index* shape, int dtype, const void* weights, int weights_dtype, void* to, Index* bytes,
                  Index threads) {
  const Shape s = shape_of(shape);
  const Weights w = weights_of(s, weights, weights_dtype, false);
  const auto work = [&](auto arithmetic) {
    using A = decltype(arithmetic);
    *bytes = Layout<A>{s}.packed * Index(sizeof(Unit));
    return to && !pack<A>(static_cast<Unit*>(to), s, w, threads);
  };
  if (dtype == INT8) return work(Int8());
  return dtype == BFLOAT16 ? work(NativeBfloat16()) : work(Float32());
}

// As conv_forward, by packed weights. In int8, `x` times `factor` plus `zero` is rounded to 0..127, and a kernel's sums
// are multiplied by its `scale`; `bias` has what `zero` adds to them taken off. `out` is of `out_dtype`.
KERNEL(conv_packed)(const Index* shape, int dtype, const void* x, int x_dtype, const void* weights, const float* bias,
                    double factor, double zero, const float* scale, void* out, int out_dtype, int relu, Index threads) {
  Correlation job{shape_of(shape), x, nullptr, x_dtype, static_cast<const Unit*>(weights), bias, out, relu != 0};
  job.quantizer = {float(factor), float(zero)}, job.scale = scale;
  const auto work = [&](auto arithmetic) {
    using A = decltype(arithmetic);
    return !(out_dtype == BFLOAT16 ? correlate<A, Bfloat16>(job, threads) : correlate<A, float>(job, threads));
  };
  if (dtype == INT8) return work(Int8());
  return dtype == BFLOAT16 ? work(NativeBfloat16()) : work(Float32());
}
