// Local response normalization (lrn) and normalization within each map (map_norm), forward and backward, in portable
// C++17 behind a plain C interface.
//
// A block of the tensor is copied into float32 buffers that fit the cache, with zeros between segments as wide as a
// window. In such a buffer every window is a sum at one stride, so both memory layouts share the same flat loops,
// which the compiler turns into vector code. The backward pass recomputes the scale, so nothing is saved for it.

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "numbers.h"
#include "parallel.h"

#define VECTOR _Pragma("omp simd")

namespace {

// ---- float16, by integer arithmetic that vectorizes everywhere; rounding is to nearest even ---------------------

inline float from_float16(std::uint16_t h) {
  std::uint32_t magnitude = std::uint32_t(h & 0x7fffu) << 13, sign = std::uint32_t(h & 0x8000u) << 16;
  std::uint32_t normal = magnitude + (112u << 23);
  std::uint32_t special = normal + (112u << 23);
  std::uint32_t subnormal = bits<std::uint32_t>(bits<float>(magnitude + (113u << 23)) - bits<float>(113u << 23));
  std::uint32_t value = magnitude >= (31u << 23) ? special : (magnitude < (1u << 23) ? subnormal : normal);
  return bits<float>(value | sign);
}

inline std::uint16_t to_float16(float f) {
  std::uint32_t u = bits<std::uint32_t>(f), sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  std::uint32_t special = u > 0x7f800000u ? 0x7e00u : 0x7c00u;
  std::uint32_t subnormal = bits<std::uint32_t>(bits<float>(u) + bits<float>(126u << 23)) - (126u << 23);
  std::uint32_t normal = (u - (112u << 23) + 0xfffu + ((u >> 13) & 1u)) >> 13;
  std::uint32_t value = u >= (143u << 23) ? special : (u < (113u << 23) ? subnormal : normal);
  return std::uint16_t(value | sign);
}

void load(int dtype, const void* from, Index at, float* __restrict to, Index n) {
  if (dtype == FLOAT32) {
    std::memcpy(to, static_cast<const float*>(from) + at, std::size_t(n) * sizeof(float));
  } else if (dtype == BFLOAT16) {
    const std::uint16_t* p = static_cast<const std::uint16_t*>(from) + at;
    VECTOR for (Index i = 0; i < n; ++i) to[i] = from_bfloat16(p[i]);
  } else {
    const std::uint16_t* p = static_cast<const std::uint16_t*>(from) + at;
    VECTOR for (Index i = 0; i < n; ++i) to[i] = from_float16(p[i]);
  }
}

void store(int dtype, void* to, Index at, const float* __restrict from, Index n) {
  if (dtype == FLOAT32) {
    std::memcpy(static_cast<float*>(to) + at, from, std::size_t(n) * sizeof(float));
  } else if (dtype == BFLOAT16) {
    std::uint16_t* p = static_cast<std::uint16_t*>(to) + at;
    VECTOR for (Index i = 0; i < n; ++i) p[i] = to_bfloat16(from[i]);
  } else {
    std::uint16_t* p = static_cast<std::uint16_t*>(to) + at;
    VECTOR for (Index i = 0; i < n; ++i) p[i] = to_float16(from[i]);
  }
}

// ---- s^-beta and 1/s ------------------------------------------------------------------------------------------

struct Power {
  float power, inverse;
};

// q = s^-1/4 from a guess in the exponent bits (3 % off) by two steps of third order, with e = 1 - s q^4 and
// (1 - e)^-1/4 = 1 + e/4 + 5/32 e^2 + ...; then s^-3/4 = q^3 and 1/s = q^4.
inline Power three_quarters(float s) {
  const float limit = 3.0e38f;
  float x = s < limit ? s : limit;
  float q = bits<float>(0x4f586000u - (bits<std::uint32_t>(x) >> 2));
  for (int step = 0; step < 2; ++step) {
    float square = q * q, e = 1.0f - (x * square) * square;
    q += (q * e) * (0.25f + 0.15625f * e);
  }
  float square = q * q;
  bool finite = s < limit;
  return {finite ? square * q : 0.0f, finite ? square * square : 0.0f};
}

// Any other power, in float64 so that a wide range of s keeps full float32 accuracy.
inline Power any_power(float s, double beta) {
  std::uint64_t u = bits<std::uint64_t>(double(s));
  double m = bits<double>((u & 0xfffffffffffffull) | 0x3ff0000000000000ull);  // s = m 2^e, 1 <= m < 2
  double e = bits<double>((u >> 52) | 0x4330000000000000ull) - (4503599627370496.0 + 1023.0);
  bool high = m > 1.4142135623730951;
  m = high ? 0.5 * m : m;
  e = high ? e + 1.0 : e;
  double z = (m - 1.0) / (m + 1.0), zz = z * z;
  double log = 1.0 / 13.0;
  log = log * zz + 1.0 / 11.0;
  log = log * zz + 1.0 / 9.0;
  log = log * zz + 1.0 / 7.0;
  log = log * zz + 1.0 / 5.0;
  log = log * zz + 1.0 / 3.0;
  log = (log * zz + 1.0) * z * 2.8853900817779268;  // log2 m
  double y = -beta * (e + log);
  y = y < -1000.0 ? -1000.0 : (y > 1000.0 ? 1000.0 : y);
  double shifted = y + 6755399441055744.0;  // rounds to the nearest whole number, left in the low bits
  double f = (y - (shifted - 6755399441055744.0)) * 0.6931471805599453;
  double exp = 1.0 / 40320.0;
  exp = exp * f + 1.0 / 5040.0;
  exp = exp * f + 1.0 / 720.0;
  exp = exp * f + 1.0 / 120.0;
  exp = exp * f + 1.0 / 24.0;
  exp = exp * f + 1.0 / 6.0;
  exp = exp * f + 0.5;
  exp = exp * f + 1.0;
  exp = exp * f + 1.0;
  double two = bits<double>((bits<std::uint64_t>(shifted) + 1023ull) << 52);
  return {float(exp * two), 1.0f / s};
}

template <bool QUARTERS> inline Power scaled(float s, double beta) {
  if constexpr (QUARTERS) return three_quarters(s);
  return any_power(s, beta);
}

// ---- the flat loops -------------------------------------------------------------------------------------------

// SIZE 0: `p` holds sums already. Otherwise the window is summed on the fly, with or without squaring.
template <int SIZE> inline float window(const float* p, Index stride) {
  float total = p[0];
  for (int d = 1; d < SIZE; ++d) total += p[d * stride];
  return total;
}

template <int SIZE> inline float window_of_squares(const float* p, Index stride) {
  if constexpr (SIZE == 0) return p[0];
  float total = p[0] * p[0];
  for (int d = 1; d < SIZE; ++d) total += p[d * stride] * p[d * stride];
  return total;
}

void squares(const float* __restrict a, float* __restrict out, Index n) {
  VECTOR for (Index i = 0; i < n; ++i) out[i] = a[i] * a[i];
}

void sums(const float* __restrict in, float* __restrict out, Index n, Index size, Index stride) {
  VECTOR for (Index i = 0; i < n; ++i) out[i] = in[i];
  for (Index d = 1; d < size; ++d) {
    const float* shifted = in + d * stride;
    VECTOR for (Index i = 0; i < n; ++i) out[i] += shifted[i];
  }
}

struct Formula {
  float alpha, k;
  double beta;
};

template <int SIZE, bool QUARTERS>
void normalize(const float* __restrict window, Index stride, const float* __restrict a, float* __restrict y, Index n,
               Formula f) {
  VECTOR for (Index i = 0; i < n; ++i) {
    y[i] = a[i] * scaled<QUARTERS>(f.k + f.alpha * window_of_squares<SIZE>(window + i, stride), f.beta).power;
  }
}

// u is g s^-beta, and t what each member of a window sends to the others, u a / s: nothing from the padding, so that
// a NaN stays in its own segment.
template <int SIZE, bool QUARTERS>
void send(const float* __restrict window, Index stride, const float* __restrict a, const float* __restrict g,
          float* __restrict u, float* __restrict t, Index n, Formula f) {
  VECTOR for (Index i = 0; i < n; ++i) {
    Power s = scaled<QUARTERS>(f.k + f.alpha * window_of_squares<SIZE>(window + i, stride), f.beta);
    u[i] = g[i] * s.power;
    t[i] = a[i] == 0.0f ? 0.0f : u[i] * (a[i] * s.inverse);
  }
}

template <int SIZE>
void collect(const float* __restrict t, Index stride, const float* __restrict a, float* __restrict u, Index n,
             Formula f) {
  const float factor = float(2.0 * f.alpha * f.beta);
  VECTOR for (Index i = 0; i < n; ++i) u[i] -= factor * a[i] * window<SIZE>(t + i, stride);
}

template <int SIZE>
void normalize_any(const float* window, Index stride, const float* a, float* y, Index n, Formula f) {
  f.beta == 0.75 ? normalize<SIZE, true>(window, stride, a, y, n, f)
                 : normalize<SIZE, false>(window, stride, a, y, n, f);
}

template <int SIZE>
void send_any(const float* window, Index stride, const float* a, const float* g, float* u, float* t, Index n,
              Formula f) {
  f.beta == 0.75 ? send<SIZE, true>(window, stride, a, g, u, t, n, f)
                 : send<SIZE, false>(window, stride, a, g, u, t, n, f);
}

// Asks for large pages under a fresh result: its first touch then costs a fraction of the page faults.
void expect(void* out, Index bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
  const auto first = (reinterpret_cast<std::uintptr_t>(out) + page - 1) & ~(page - 1);
  const auto last = (reinterpret_cast<std::uintptr_t>(out) + std::uintptr_t(bytes)) & ~(page - 1);
  if (bytes >= Index(16 * page) && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)out, (void)bytes;
#endif
}

class Buffers {
 public:
  Buffers(Index count, Index length) : length_((length + 63) / 16 * 16) {
    memory_ = static_cast<float*>(allocate(count * length_ * Index(sizeof(float))));
    if (!memory_) out_of_memory();
    clear(count);
  }
  ~Buffers() { release(memory_); }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  float* operator[](Index i) { return memory_ + i * length_; }
  void clear(Index count) { std::memset(memory_, 0, std::size_t(count * length_) * sizeof(float)); }

 private:
  Index length_;
  float* memory_;
};

// ---- lrn: across maps ----------------------------------------------------------------------------------------------

struct LrnJob {
  const void *x, *g;
  void* out;
  int dtype;
  Index images, maps, positions;
  bool channels_last;
  Index columns, size;
  Formula formula;
};

enum Buffer : Index { A, GRADIENT, RESULT, SQUARE, SUM, SENT, BUFFERS };

// Normalizes one padded block of `flat` positions, windows at `stride`, from A (and GRADIENT) into RESULT.
void lrn_block(Buffers& b, Index flat, Index stride, const LrnJob& job) {
  const Index size = job.size, before = size / 2, after = (size - 1) / 2;
  const Index first = before * stride, n = flat - (size - 1) * stride;
  const bool direct = size == 3 || size == 5;  // these sum on the fly
  const Formula& f = job.formula;
  const float *a = b[A] + first, *g = b[GRADIENT] + first, *sent = b[SENT] + first - after * stride;
  float *result = b[RESULT] + first, *t = b[SENT] + first, *sum = b[SUM];
  if (!direct) {
    squares(b[A], b[SQUARE], flat);
    sums(b[SQUARE], sum, n, size, stride);
  }
  if (!job.g) {
    if (size == 5) normalize_any<5>(b[A], stride, a, result, n, f);
    else if (size == 3) normalize_any<3>(b[A], stride, a, result, n, f);
    else normalize_any<0>(sum, stride, a, result, n, f);
    return;
  }
  if (size == 5) send_any<5>(b[A], stride, a, g, result, t, n, f);
  else if (size == 3) send_any<3>(b[A], stride, a, g, result, t, n, f);
  else send_any<0>(sum, stride, a, g, result, t, n, f);
  if (!direct) sums(sent, sum, n, size, stride);
  if (size == 5) collect<5>(sent, stride, a, result, n, f);
  else if (size == 3) collect<3>(sent, stride, a, result, n, f);
  else collect<0>(sum, stride, a, result, n, f);
}

// Floats per buffer, by measurement: rows fit the first-level cache, planes the second-level one.
constexpr Index ROWS_BLOCK = 1024, PLANES_BLOCK = 8192;

void lrn_rows(const LrnJob& job, Index first, Index last, Index rows) {
  const Index own = job.maps / job.columns, width = own + job.size - 1, before = job.size / 2;
  Buffers b(BUFFERS, rows * job.columns * width + job.size);
  for (Index row = first; row < last; row += rows) {
    const Index segments = std::min(rows, last - row) * job.columns, base = row * job.maps;
    for (Index s = 0; s < segments; ++s) {
      load(job.dtype, job.x, base + s * own, b[A] + s * width + before, own);
      if (job.g) load(job.dtype, job.g, base + s * own, b[GRADIENT] + s * width + before, own);
    }
    lrn_block(b, segments * width, 1, job);
    for (Index s = 0; s < segments; ++s) store(job.dtype, job.out, base + s * own, b[RESULT] + s * width + before, own);
  }
}

void lrn_planes(const LrnJob& job, Index first, Index last, Index blocks, Index span) {
  const Index own = job.maps / job.columns, width = own + job.size - 1, before = job.size / 2;
  Buffers b(BUFFERS, (width + 1) * span);
  Index stride = 0;
  for (Index unit = first; unit < last; ++unit) {
    const Index group = unit / blocks, start = unit % blocks * span;  // group: image and column
    const Index n = std::min(span, job.positions - start), base = group * own * job.positions + start;
    if (n != stride) b.clear(BUFFERS);
    stride = n;
    for (Index c = 0; c < own; ++c) {
      load(job.dtype, job.x, base + c * job.positions, b[A] + (c + before) * n, n);
      if (job.g) load(job.dtype, job.g, base + c * job.positions, b[GRADIENT] + (c + before) * n, n);
    }
    lrn_block(b, width * n, n, job);
    for (Index c = 0; c < own; ++c) store(job.dtype, job.out, base + c * job.positions, b[RESULT] + (c + before) * n, n);
  }
}

// ---- map_norm: within a map ------------------------------------------------------------------------------------------

struct MapNormJob {
  const void *x, *g;
  void* out;
  int dtype;
  Index images, maps, rows, columns;
  bool channels_last;
  Index size;
  Formula formula;
};

// Normalizes one plane of `span` interleaved maps, padded on every side, from A (and GRADIENT) into RESULT.
void map_norm_plane(Buffers& b, Index span, const MapNormJob& job) {
  const Index size = job.size, before = size / 2, after = (size - 1) / 2;
  const Index line = (job.columns + size - 1) * span, flat = (job.rows + size - 1) * line;
  const Index first = before * (line + span), n = flat - (size - 1) * (line + span);
  const float *a = b[A] + first, *g = b[GRADIENT] + first, *sent = b[SENT] + first - after * (line + span);
  float *result = b[RESULT] + first, *square = b[SQUARE], *sum = b[SUM];
  squares(b[A], square, flat);
  sums(square, b[RESULT], flat - (size - 1) * span, size, span);
  sums(b[RESULT], sum, n, size, line);
  if (!job.g) {
    normalize_any<0>(sum, 0, a, result, n, job.formula);
    return;
  }
  send_any<0>(sum, 0, a, g, result, b[SENT] + first, n, job.formula);
  sums(sent, square, n + (size - 1) * line, size, span);
  sums(square, sum, n, size, line);
  collect<0>(sum, 0, a, result, n, job.formula);
}

void map_norm_units(const MapNormJob& job, Index first, Index last, Index blocks, Index span) {
  const Index before = job.size / 2, across = job.columns + job.size - 1;
  const Index flat = (job.rows + job.size - 1) * across * span;
  Buffers b(BUFFERS, flat + (before + 1) * (across + 1) * span);
  Index now = span;
  for (Index unit = first; unit < last; ++unit) {
    const Index image = unit / blocks, map = unit % blocks * span;
    const Index n = std::min(span, job.maps - map);
    if (n != now) b.clear(BUFFERS);
    now = n;
    for (Index row = 0; row < job.rows; ++row) {
      const Index to = ((row + before) * across + before) * n;
      if (job.channels_last) {
        for (Index column = 0; column < job.columns; ++column) {
          const Index at = ((image * job.rows + row) * job.columns + column) * job.maps + map;
          load(job.dtype, job.x, at, b[A] + to + column * n, n);
          if (job.g) load(job.dtype, job.g, at, b[GRADIENT] + to + column * n, n);
        }
      } else {
        const Index at = ((image * job.maps + map) * job.rows + row) * job.columns;
        load(job.dtype, job.x, at, b[A] + to, job.columns);
        if (job.g) load(job.dtype, job.g, at, b[GRADIENT] + to, job.columns);
      }
    }
    map_norm_plane(b, n, job);
    for (Index row = 0; row < job.rows; ++row) {
      const Index from = ((row + before) * across + before) * n;
      if (job.channels_last) {
        for (Index column = 0; column < job.columns; ++column)
          store(job.dtype, job.out, ((image * job.rows + row) * job.columns + column) * job.maps + map,
                b[RESULT] + from + column * n, n);
      } else {
        store(job.dtype, job.out, ((image * job.maps + map) * job.rows + row) * job.columns, b[RESULT] + from, job.columns);
      }
    }
  }
}

}  // namespace

// 0 where done, 1 where memory ran out. `g` null: forward. `dtype` is a Dtype.
KERNEL(lrn)(const void* x, const void* g, void* out, int dtype, Index images, Index maps, Index positions,
                int channels_last, Index columns, Index size, double alpha, double beta, double k, Index threads) {
  const Formula formula{float(alpha), float(k), beta};
  const LrnJob job{x, g, out, dtype, images, maps, positions, channels_last != 0, columns, size, formula};
  if (images * maps * positions == 0) return 0;
  expect(out, images * maps * positions * (dtype == FLOAT32 ? 4 : 2));
  const Index own = maps / columns, width = own + size - 1;
  if (job.channels_last) {
    const Index rows = std::max<Index>(1, ROWS_BLOCK / (columns * width)), units = (images * positions + rows - 1) / rows;
    return !parallel(units, images * maps * positions, threads, [&](Index first, Index last) {
      lrn_rows(job, first * rows, std::min(last * rows, images * positions), rows);
    });
  }
  const Index span = std::min(positions, std::max<Index>(32, PLANES_BLOCK / width / 16 * 16));
  const Index blocks = (positions + span - 1) / span;
  return !parallel(images * columns * blocks, images * maps * positions, threads,
                   [&](Index first, Index last) { lrn_planes(job, first, last, blocks, span); });
}

KERNEL(map_norm)(const void* x, const void* g, void* out, int dtype, Index images, Index maps, Index rows,
                     Index columns, int channels_last, Index size, double alpha, double beta, double k,
                     Index threads) {
  const Formula formula{float(alpha), float(k), beta};
  const MapNormJob job{x, g, out, dtype, images, maps, rows, columns, channels_last != 0, size, formula};
  if (images * maps * rows * columns == 0) return 0;
  expect(out, images * maps * rows * columns * (dtype == FLOAT32 ? 4 : 2));
  const Index plane = (rows + size - 1) * (columns + size - 1);
  const Index span = job.channels_last ? std::min(maps, std::max<Index>(16, 16384 / plane / 16 * 16)) : 1;
  const Index blocks = (maps + span - 1) / span;
  return !parallel(images * blocks, images * maps * rows * columns, threads,
                   [&](Index first, Index last) { map_norm_units(job, first, last, blocks, span); });
}
