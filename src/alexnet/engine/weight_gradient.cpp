// The gradients of a convolution's weights and biases.
//
// The sum runs over images and positions: maps and gradients are packed into units, a pair of bfloat16 numbers being of
// two neighbouring images, and every place of the kernel walks over the positions of the maps.

#include "convolution.h"

namespace {

struct Gradient {
  Shape shape;
  const void *x, *g, *gate;
  int x_dtype;
  float *weights, *bias;
};

// LANES units of one image, or of one pair of images (where `other` is the second).
inline Bits32 units_of(const float* own, const float*) { return load_whole<Bits32>(own); }
inline Bits32 units_of(const Bfloat16* own, const Bfloat16* other) {
  return widen(load_whole<Bits16>(own)) | widen(load_whole<Bits16>(other)) << 16;
}

// The first `count` numbers, zero where `gate` is there and not above zero.
template <class T> inline Vector read(Index count, const T* from, const T* gate) {
  const Vector numbers = load(from, count);
  return gate ? (load(gate, count) > Vector{} ? numbers : Vector{}) : numbers;
}

template <class A> struct WeightGradient {
  using Number = typename A::Number;
  using Stored = typename A::Stored;
  static constexpr Index FOLD = A::FOLD;
  Gradient job;
  Shape s = job.shape;
  Panels panels{s.own_kernels()};
  bool whole = s.groups == 1 && s.own_maps() < 16;  // then a row of a kernel is one run of units
  Index along = whole ? s.size * s.own_maps() : s.own_maps();
  int r = rows();
  Index tiles = (along + r - 1) / r;  // of one kernel row, or of one kernel position
  Index plane = whole ? 0 : s.rows() * s.columns() * r;  // units of one block of maps
  Index image = (whole ? s.rows() * s.columns() * s.c : plane * tiles * s.groups) + 32;
  Index places = s.p * s.q;
  Index spread = s.groups * panels.count * panels.width() * places;  // units of one pair of gradients
  Index pairs = (s.n + FOLD - 1) / FOLD;
  Unit *x = nullptr, *g = nullptr;
  float *sums = nullptr, *bias = nullptr;
  Index together = 1;

  int rows() const {
    const int most = tall(panels.vectors), least = low(panels.vectors);
    int best = most;
    for (int r = most; r >= least; --r)
      if ((along + r - 1) / r * r < (along + best - 1) / best * best) best = r;
    return best;
  }

  static void store_units(Unit* to, const Number* own, const Number* other, Index count) {
    for (Index i = 0; i < count; i += LANES) store(to + i, units_of(own + i, other + i), count - i);
  }

  // One pair of images into units, with zeros around them.
  void pack_maps(Index pair, Index slot) {
    const Index line = s.columns() * s.c, size = s.rows() * line;
    Number* padded = reinterpret_cast<Number*>(scratch(0, (FOLD * size + LANES) * Index(sizeof(Number))));
    for (Index i = 0; i < FOLD; ++i) {
      const Index n = pair * FOLD + i, at = n * s.h * s.w * s.c;
      if (n >= s.n) std::memset(static_cast<void*>(padded + i * size), 0, std::size_t(size) * sizeof(Number));
      else if (job.x_dtype == BFLOAT16)
        pad_image<Number, Bfloat16>(padded + i * size, static_cast<const Bfloat16*>(job.x) + at, nullptr, s);
      else pad_image<Number, float>(padded + i * size, static_cast<const float*>(job.x) + at, nullptr, s);
    }
    Unit* to = x + slot * image;
    const Number *own = padded, *other = padded + (FOLD - 1) * size;
    if (whole) {
      for (Index i = 0; i < size; i += LANES) store_whole(to + i, units_of(own + i, other + i));
      return;
    }
    const Index left = s.own_maps() - (tiles - 1) * r;
    for (Index place = 0; place < s.rows() * s.columns(); ++place, to += r)
      for (Index group = 0; group < s.groups; ++group) {
        Unit* block = to + group * tiles * plane;
        for (Index t = 0; t + 1 < tiles; ++t, block += plane)
          store_units(block, own + t * r, other + t * r, r);
        store_units(block, own + (tiles - 1) * r, other + (tiles - 1) * r, left);
        own += s.own_maps(), other += s.own_maps();
      }
  }

  // One pair of gradients into units, panel by panel, and their sums over positions.
  template <int V> void pack_gradients(Index pair, Index slot) {
    const Stored *from = static_cast<const Stored*>(job.g), *gate = static_cast<const Stored*>(job.gate);
    const Index own = s.own_kernels(), first = pair * FOLD, second = std::min(first + FOLD - 1, s.n - 1);
    const bool odd = first + FOLD > s.n;
    for (Index panel = 0; panel < s.groups * panels.count; ++panel) {
      const Index skipped = panel % panels.count * V * LANES, column = panel / panels.count * own + skipped;
      Unit* to = g + (panel * together + slot) * places * V * LANES;
      Index left[V];
      Vector sum[V];
      for (int v = 0; v < V; ++v) {
        left[v] = std::min<Index>(std::max<Index>(own - skipped - v * LANES, 0), LANES);
        sum[v] = Vector{};
      }
      for (Index place = 0; place < places; ++place, to += V * LANES)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Index at = (first * places + place) * s.o + column + v * LANES;
          const Vector low = read(left[v], from + at, gate ? gate + at : nullptr);
          sum[v] += low;
          Bits32 units = (Bits32)low;
          if constexpr (FOLD == 2) {
            const Index next = at + (second - first) * places * s.o;
            const Vector high = odd ? Vector{} : read(left[v], from + next, gate ? gate + next : nullptr);
            sum[v] += high;
            units = units >> 16 | (Bits32)high;
          }
          store_whole(to + v * LANES, units);
        }
      for (int v = 0; v < V; ++v) store(bias + pair * s.o + column + v * LANES, sum[v], left[v]);
    }
  }

  template <int V, int R> void tile(Index panel, Index ky, Index kx, Index t, Index used, const Index* segments) {
    const Index group = panel / panels.count;
    const Index start = whole ? ky * s.columns() * s.c + t * R
                              : (group * tiles + t) * plane + (ky * s.columns() + kx) * R;
    const Index step = whole ? s.stride * s.c : s.stride * R;
    const Index row = (whole ? ky * along : (ky * s.size + kx) * along) + t * R, valid = std::min<Index>(R, along - t * R);
    float* to = sums + (panel * s.size * s.size * s.own_maps() + row) * V * LANES;
    alignas(64) Unit tile[R * V * LANES];
    walk_positions<A, V, R>(reinterpret_cast<const char*>(x + start), segments, used * s.p, s.q, step * 4,
                            g + panel * together * places * V * LANES, tile);
    for (Index i = 0; i < valid * V * LANES; i += LANES)
      store_all(to + i, load_all(to + i) + load_whole<Vector>(tile + i));
  }

  template <int V> void tiles_of(Index first, Index last, Index used) {
    const Index line = whole ? s.columns() * s.c : s.columns() * r;
    Index* segments = reinterpret_cast<Index*>(scratch(1, used * s.p * 8));
    for (Index i = 0; i < used * s.p; ++i) segments[i] = (i / s.p * image + i % s.p * s.stride * line) * 4;
    const Index places_of = whole ? s.size : s.size * s.size;
    for (Index unit = first; unit < last; ++unit) {  // panel, then block of maps, then place in the kernel
      const Index panel = unit / (tiles * places_of), t = unit / places_of % tiles, place = unit % places_of;
      const Index ky = whole ? place : place / s.size, kx = whole ? 0 : place % s.size;
      with_rows<low(V), tall(V)>([&](auto rows) { tile<V, decltype(rows)::value>(panel, ky, kx, t, used, segments); });
    }
  }

  template <int R, int Last, class Call> void with_rows(Call call) {
    if constexpr (R < Last) {
      if (r != R) return with_rows<R + 1, Last>(call);
    }
    call(std::integral_constant<int, R>());
  }

  bool run(Index threads) {
    together = std::max<Index>(1, std::min<Index>(pairs, (Index(512) << 10) / 4 / (panels.width() * places)));
    together = std::max<Index>(1, std::min(together, (Index(4) << 20) / (image + spread)));
    const Index rows_all = s.groups * panels.count * s.size * s.size * s.own_maps(), width = panels.width();
    auto round = [](Index units) { return (units + 15) / 16 * 16; };
    const Index parts[] = {round(together * image), round(together * spread), round(rows_all * width), round(pairs * s.o)};
    Memory memory(std::size_t(parts[0] + parts[1] + parts[2] + parts[3]) * 4);
    if (!memory.get()) return false;
    x = reinterpret_cast<Unit*>(memory.get());
    g = x + parts[0];
    sums = reinterpret_cast<float*>(g + parts[1]);
    bias = sums + parts[2];
    std::memset(x, 0, std::size_t(parts[0]) * 4);  // what lies between blocks of maps stays zero
    std::memset(sums, 0, std::size_t(parts[2]) * 4);
    const Index units = s.groups * panels.count * tiles * (whole ? s.size : s.size * s.size);
    for (Index start = 0; start < pairs; start += together) {
      const Index used = std::min(together, pairs - start);
      bool done = parallel(2 * used, used * (image + spread), threads, [&](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
          if (i % 2) pack_maps(start + i / 2, i / 2);
          else with_vectors(panels.vectors, [&](auto v) { pack_gradients<decltype(v)::value>(start + i / 2, i / 2); });
        }
      });
      with_vectors(panels.vectors, [&](auto vectors) {
        done = done && parallel(units, used * places * rows_all * width, threads, [&](Index first, Index last) {
          tiles_of<decltype(vectors)::value>(first, last, used);
        });
      });
      if (!done) return false;
    }
    std::memset(job.bias, 0, std::size_t(s.o) * sizeof(float));
    for (Index pair = 0; pair < pairs; ++pair)
      for (Index k = 0; k < s.o; ++k) job.bias[k] += bias[pair * s.o + k];
    const Index inner = s.size * s.size * s.own_maps();
    for (Index kernel = 0; kernel < s.o; ++kernel) {
      const Index own = kernel % s.own_kernels(), panel = kernel / s.own_kernels() * panels.count + own / width;
      const float* from = sums + panel * inner * width + own % width;
      for (Index i = 0; i < inner; ++i) job.weights[kernel * inner + i] = from[i * width];
    }
    return true;
  }
};

}  // namespace

// The gradients by weights and biases, in float32, of the same layout as the weights.
KERNEL(conv_grad_weights)(const Index* shape, int dtype, const void* x, int x_dtype, const void* g, const void* gate,
                          float* weights, float* bias, Index threads) {
  const Gradient job{shape_of(shape), x, g, gate, x_dtype, weights, bias};
  if (dtype == BFLOAT16) return !WeightGradient<NativeBfloat16>{job}.run(threads);
  return !WeightGradient<Float32>{job}.run(threads);
}
