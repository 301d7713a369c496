// Convolution forward and backward on channels-last maps.
//
// One operand is read where it lies and broadcast, 32 bits at a time; the other is packed once into rows of vectors.
// Those 32 bits, a unit, are one float32 number or, where the processor multiplies them, a pair of bfloat16 numbers,
// whose products it adds up in float32; beside that the two arithmetics share all code. Elsewhere bfloat16 numbers are
// widened as they are packed, multiplied as float32 and rounded as they are stored. No patches are copied out: an image
// is copied once with its zeros around it, and kernels walk over it. For the gradient of the weights, where the sum runs
// over positions, the members of a pair are two neighbouring images.

#include "vector.h"

namespace {

using Unit = std::uint32_t;
#define ALONE __attribute__((noinline))  // inlined, the inner loops would share their registers with what is around them

// n images of h x w positions and c maps become p x q positions and o kernels, both in `groups` groups.
struct Shape {
  Index n, h, w, c, groups, o, size, stride, top, left, p, q;
  Index own_maps() const { return c / groups; }
  Index own_kernels() const { return o / groups; }
  Index rows() const { return (p - 1) * stride + size; }  // of a padded image, as far as kernels reach
  Index columns() const { return (q - 1) * stride + size; }
};

// Memory of a thread that stays with it from call to call.
char* scratch(int which, Index bytes) {
  struct Held {
    char* memory = nullptr;
    Index bytes = 0;
    ~Held() { release(memory); }
  };
  thread_local Held held[4];
  Held& own = held[which];
  if (own.bytes < bytes) {
    release(own.memory);
    own.bytes = 0;
    own.memory = static_cast<char*>(allocate(bytes));
    if (!own.memory) out_of_memory();
    own.bytes = bytes;
  }
  return own.memory;
}

inline void put(float& to, float from) { to = from; }
inline void put(Bfloat16& to, Bfloat16 from) { to = from; }
inline void put(Bfloat16& to, float from) { to = to_bfloat16(from); }
inline void put(float& to, Bfloat16 from) { to = from_bfloat16(from); }
inline float number(float f) { return f; }
inline float number(Bfloat16 h) { return from_bfloat16(h); }

// What is multiplied: `Number`, FOLD of them to a unit; and the type of the maps that come out or whose gradient comes in.
struct Float32 {
  using Number = float;
  using Stored = float;
  static constexpr Index FOLD = 1;
};
struct WidenedBfloat16 : Float32 {
  using Stored = Bfloat16;
};
inline Vector add_products(Float32, Vector sum, Bits32 a, Bits32 b) { return sum + (Vector)a * (Vector)b; }
#if defined(WIDE_MASKS) && defined(__AVX512BF16__)
struct NativeBfloat16 {
  using Number = Bfloat16;
  using Stored = Bfloat16;
  static constexpr Index FOLD = 2;
};
inline Vector add_products(NativeBfloat16, Vector sum, Bits32 a, Bits32 b) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, bits<__m512bh>(a), bits<__m512bh>(b));
}
#else
using NativeBfloat16 = WidenedBfloat16;
#endif

inline Bits32 broadcast(const char* at) {
  Unit unit;
  std::memcpy(&unit, at, sizeof unit);
  return splat(unit);
}

// ---- the two inner loops: R rows of V vectors of sums stay in registers ---------------------------------------------

// Row r walks along `length` units from at[r] + segment, for every segment; b is read straight through.
template <class A, int V, int R>
ALONE void walk_kernel(const char* const* at, const Index* segments, Index count, Index length, const Unit* b, float* tile) {
  Vector sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = Vector{};
  for (Index s = 0; s < count; ++s) {
    const Index first = segments[s], last = first + 4 * length;
    for (Index i = first; i < last; i += 4, b += V * LANES) {
      Bits32 across[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) across[v] = load_whole<Bits32>(b + v * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Bits32 down = broadcast(at[r] + i);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = add_products(A(), sum[r][v], down, across[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_all(tile + (r * V + v) * LANES, sum[r][v]);
}

// Row r is the r-th unit at each of `length` positions, `step` bytes apart, from each segment's start.
template <class A, int V, int R>
ALONE void walk_positions(const char* at, const Index* segments, Index count, Index length, Index step, const Unit* b,
                           float* tile) {
  Vector sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = Vector{};
  for (Index s = 0; s < count; ++s) {
    const char* from = at + segments[s];
    for (Index i = 0; i < length; ++i, from += step, b += V * LANES) {
      Bits32 across[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) across[v] = load_whole<Bits32>(b + v * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Bits32 down = broadcast(from + 4 * r);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = add_products(A(), sum[r][v], down, across[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_all(tile + (r * V + v) * LANES, sum[r][v]);
}

// Rows of sums, and vectors of each, that fit into the registers beside the operands.
constexpr int MOST = REGISTERS == 32 ? 4 : 2;
constexpr int tall(int vectors) {
  if (REGISTERS == 32) return vectors == 4 ? 6 : vectors == 3 ? 8 : vectors == 2 ? 12 : 14;
  return vectors == 2 ? 6 : 12;
}
constexpr int low(int vectors) { return vectors == MOST ? 4 : vectors == 3 ? 6 : 8; }

// Columns of sums, cut into panels of V vectors with as little left over as possible.
struct Panels {
  Index count;
  int vectors;
  explicit Panels(Index columns) {
    const Index all = (columns + LANES - 1) / LANES;
    count = (all + MOST - 1) / MOST;
    vectors = int((all + count - 1) / count);
  }
  Index width() const { return vectors * LANES; }
};

template <class Call> void with_vectors(int vectors, Call call) {
  switch (vectors) {
    case 1: return call(std::integral_constant<int, 1>());
    case 2: return call(std::integral_constant<int, 2>());
    case 3: return call(std::integral_constant<int, std::min(3, MOST)>());
    default: return call(std::integral_constant<int, MOST>());
  }
}

// ---- images with zeros around them ----------------------------------------------------------------------------------

// n numbers, those of them zeroed whose `gate` is not above zero.
template <class To, class From> void copy_row(To* __restrict to, const From* __restrict from, const From* gate, Index n) {
  if (gate) {
    for (Index i = 0; i < n; ++i) put(to[i], number(gate[i]) > 0 ? from[i] : From(0));
  } else if (std::is_same<To, From>::value) {
    std::memcpy(static_cast<void*>(to), from, std::size_t(n) * sizeof(To));
  } else {
    for (Index i = 0; i < n; ++i) put(to[i], from[i]);
  }
}

template <class To, class From>
void pad_image(To* to, const From* from, const From* gate, const Shape& s) {
  const Index line = s.columns() * s.c;
  const Index width = std::min(s.w, s.columns() - s.left) * s.c, height = std::min(s.h, s.rows() - s.top);
  std::memset(static_cast<void*>(to), 0, std::size_t(s.top * line) * sizeof(To));
  for (Index row = 0; row < height; ++row) {
    To* at = to + (row + s.top) * line;
    std::memset(static_cast<void*>(at), 0, std::size_t(s.left * s.c) * sizeof(To));
    copy_row(at + s.left * s.c, from + row * s.w * s.c, gate ? gate + row * s.w * s.c : nullptr, width);
    const Index end = s.left * s.c + width;
    std::memset(static_cast<void*>(at + end), 0, std::size_t(line - end) * sizeof(To));
  }
  const Index rest = (s.rows() - s.top - height) * line;
  std::memset(static_cast<void*>(to + (s.top + height) * line), 0, std::size_t(rest) * sizeof(To));
}

// ---- correlation: forward, and backward to the maps -----------------------------------------------------------------

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
  if (w.dtype == BFLOAT16) fill(static_cast<const Bfloat16*>(w.at));
  else fill(static_cast<const float*>(w.at));
}

struct Correlation {
  Shape shape;
  const void *x, *gate;
  int x_dtype;
  const Unit* weights;
  const float* bias;
  void* out;
  bool relu;
};

template <class A, int V>
void correlate(const Correlation& job, const Panels& panels, Index first, Index last, Index together) {
  constexpr int R = tall(V);
  constexpr Index FOLD = A::FOLD;
  using Number = typename A::Number;
  using Stored = typename A::Stored;
  const Shape& s = job.shape;
  const Index line = s.columns() * s.c, image = (s.rows() * line + 31) / 32 * 32, places = s.p * s.q;
  const Index maps = s.own_maps(), bytes = sizeof(Number);
  const bool whole = s.groups == 1;
  const Index units = ((whole ? s.size * maps : maps) + FOLD - 1) / FOLD, count = whole ? s.size : s.size * s.size;
  Number* padded = reinterpret_cast<Number*>(scratch(0, (together * image + 64) * bytes));
  Index* offsets = reinterpret_cast<Index*>(scratch(1, (together * places + count + R) * 8));
  Index* segments = offsets + together * places + R;
  for (Index i = 0; i < count; ++i)
    segments[i] = (whole ? i * line : i / s.size * line + i % s.size * s.c) * bytes;
  for (Index i = 0; i < together * places; ++i)
    offsets[i] = (i / places * image + i % places / s.q * s.stride * line + i % s.q * s.stride * s.c) * bytes;
  for (Index i = 0; i < R; ++i) offsets[together * places + i] = 0;
  // The second number of a segment's last pair may lie past it; its weight is 0, but 0 times any bits may be NaN.
  std::memset(static_cast<void*>(padded + together * image), 0, 64 * bytes);
  const Index filled = s.rows() * line;
  for (Index i = 0; i < together; ++i)
    std::memset(static_cast<void*>(padded + i * image + filled), 0, (image - filled) * bytes);
  for (Index start = first; start < last; start += together) {
    const Index images = std::min(together, last - start), all = images * places;
    for (Index i = 0; i < images; ++i) {
      const Index at = (start + i) * s.h * s.w * s.c;
      if (job.x_dtype == BFLOAT16)
        pad_image(padded + i * image, static_cast<const Bfloat16*>(job.x) + at,
                  job.gate ? static_cast<const Bfloat16*>(job.gate) + at : nullptr, s);
      else
        pad_image(padded + i * image, static_cast<const float*>(job.x) + at,
                  job.gate ? static_cast<const float*>(job.gate) + at : nullptr, s);
    }
    Stored* out = static_cast<Stored*>(job.out) + start * places * s.o;
    for (Index panel = 0; panel < s.groups * panels.count; ++panel) {
      const Index group = panel / panels.count, column = panel % panels.count * V * LANES;
      const Index columns = std::min<Index>(V * LANES, s.own_kernels() - column), kernel = group * s.own_kernels() + column;
      const Unit* b = job.weights + panel * count * units * V * LANES;
      Index left[V];
      Vector start_at[V];
      for (int v = 0; v < V; ++v) {
        left[v] = std::min<Index>(std::max<Index>(columns - v * LANES, 0), LANES);
        start_at[v] = job.bias ? load(job.bias + kernel + v * LANES, left[v]) : Vector{};
      }
      const char* base = reinterpret_cast<const char*>(padded + group * maps);
      for (Index i = 0; i < all; i += R) {
        const char* rows[R];
        for (int r = 0; r < R; ++r) rows[r] = base + (i + r < all ? offsets[i + r] : 0);
        alignas(64) float tile[R * V * LANES];
        walk_kernel<A, V, R>(rows, segments, count, units, b, tile);
        const Index valid = std::min<Index>(R, all - i);
        for (Index r = 0; r < valid; ++r) {
          Stored* to = out + (i + r) * s.o + kernel;
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) {
            Vector value = load_all(tile + (r * V + v) * LANES) + start_at[v];
            if (job.relu) value = rectified(value);
            store(to + v * LANES, value, left[v]);
          }
        }
      }
    }
  }
}

template <class A> bool correlate(Correlation job, const Weights& w, Index threads) {
  const Shape& s = job.shape;
  const Panels panels(s.own_kernels());
  const Index FOLD = A::FOLD, bytes = sizeof(typename A::Number);
  const Index maps = s.own_maps(), units = s.groups == 1 ? s.size * ((s.size * maps + FOLD - 1) / FOLD)
                                                         : s.size * s.size * ((maps + FOLD - 1) / FOLD);
  const Index blocks = s.groups * panels.count, packed = blocks * units * panels.width();
  Memory memory(std::size_t(packed) * sizeof(Unit));
  if (!memory.get()) return false;
  Unit* weights = reinterpret_cast<Unit*>(memory.get());
  job.weights = weights;
  if (!parallel(blocks, packed, threads,
                [&](Index first, Index last) { pack_weights<A>(weights, w, s, panels, first, last); }))
    return false;
  const Index image = s.rows() * s.columns() * s.c * bytes, budget = 400 << 10;
  const Index together = std::max<Index>(1, std::min({budget / image, (s.n + threads - 1) / threads, Index(64)}));
  const Index pieces = (s.n + together - 1) / together;
  bool done = false;
  with_vectors(panels.vectors, [&](auto vectors) {
    done = parallel(pieces, s.n * s.p * s.q * s.o * units, threads, [&](Index first, Index last) {
      correlate<A, decltype(vectors)::value>(job, panels, first * together, std::min(s.n, last * together), together);
    });
  });
  return done;
}

// ---- the gradient of weights and biases -----------------------------------------------------------------------------

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
    alignas(64) float tile[R * V * LANES];
    walk_positions<A, V, R>(reinterpret_cast<const char*>(x + start), segments, used * s.p, s.q, step * 4,
                               g + panel * together * places * V * LANES, tile);
    for (Index i = 0; i < valid * V * LANES; i += LANES)
      store_all(to + i, load_all(to + i) + load_all(tile + i));
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

Shape shape_of(const Index* g) { return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11]}; }

}  // namespace

// x (n, h, w, c), weights (o, size, size, c / groups) -> out (n, p, q, o), computed in `dtype`. 0 where done.
KERNEL(conv_forward)(const Index* shape, int dtype, const void* x, int x_dtype, const void* weights,
                         int weights_dtype, const float* bias, void* out, int relu, Index threads) {
  const Shape s = shape_of(shape);
  const Index maps = s.own_maps(), kernel = s.size * s.size * maps;
  const Weights w{weights, weights_dtype, s.own_kernels() * kernel, kernel, s.size * maps, maps, 1, 0};
  const Correlation job{s, x, nullptr, x_dtype, nullptr, bias, out, relu != 0};
  return !(dtype == BFLOAT16 ? correlate<NativeBfloat16>(job, w, threads) : correlate<Float32>(job, w, threads));
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
  return !(dtype == BFLOAT16 ? correlate<NativeBfloat16>(job, w, threads) : correlate<Float32>(job, w, threads));
}

// The gradients by weights and biases, in float32, of the same layout as the weights.
KERNEL(conv_grad_weights)(const Index* shape, int dtype, const void* x, int x_dtype, const void* g,
                              const void* gate, float* weights, float* bias, Index threads) {
  const Gradient job{shape_of(shape), x, g, gate, x_dtype, weights, bias};
  return !(dtype == BFLOAT16 ? WeightGradient<NativeBfloat16>{job}.run(threads) : WeightGradient<Float32>{job}.run(threads));
}
