// Fully-connected layers, forward and backward.
//
// N images, K inputs, U units. Weights (U, K) are read as they lie: forward, a unit's weights and an image's inputs run
// along the same vectors, whose lanes are added up at the end of a chunk. Backward, blocks of the weights, or of the
// inputs, are packed into rows of vectors, and gradients are broadcast over them.

#include "products.h"

namespace {

constexpr Index CHUNK = 2048;  // bytes of a row that are worked on at a time: those of a few rows fit the nearest cache

inline Index rounded_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// n numbers as an arithmetic takes them, zeros after them up to `room`.
template <class A, class From>
void take(typename A::Number* __restrict to, const From* __restrict from, Index n, Index room, const Quantizer& q) {
  if constexpr (std::is_same<A, Int8>::value) {
    if constexpr (std::is_same<From, std::int8_t>::value) std::memcpy(to, from, std::size_t(n));
    else for (Index i = 0; i < n; ++i) to[i] = q(number(from[i]));
  } else if constexpr (std::is_same<From, typename A::Number>::value) {
    std::memcpy(to, from, std::size_t(n) * sizeof(From));
  } else {
    Index i = 0;
    for (; i + LANES <= n; i += LANES) store_all(to + i, load_all(from + i));
    for (; i < n; ++i) put(to[i], from[i]);
  }
  std::memset(static_cast<void*>(to + n), 0, std::size_t(room - n) * sizeof(typename A::Number));
}

// A block of memory that is worked on next, asked for a few lines at a time while this one is.
struct Ahead {
  const char* at;
  Index next, rows, lines;  // bytes from row to row, and lines of 64 bytes in each
  Index calls;              // in how many it is asked for
  Index line = 0, done = 0;
  void some() {
    for (Index end = ++done * rows * lines / calls; line < std::min(end, rows * lines); ++line)
      __builtin_prefetch(at + line / lines * next + line % lines * 64, 0, 2);
  }
};

// Calls work(pointer of the dtype's own type).
template <class Work> auto typed(const void* at, int dtype, Work work) {
  return dtype == BFLOAT16 ? work(static_cast<const Bfloat16*>(at)) : work(static_cast<const float*>(at));
}

// ---- forward --------------------------------------------------------------------------------------------------------

struct Forward {
  Index n, k, u;
  const void *x, *w;
  int x_dtype, w_dtype;
  const float *bias, *scale;
  void* out;
  bool relu;
  Quantizer quantizer;
};

constexpr int UNITS = REGISTERS == 32 ? 4 : 3, MOST_IMAGES = REGISTERS == 32 ? 6 : 4;

// Sums of the products of UNITS rows of weights with I rows of inputs, added to `sums`, whose rows are `next` apart. `w`
// is of the arithmetic's own numbers, or of bfloat16 where those are float32. Strides and `count` are in numbers.
template <class A, int I, class W, class Scalar>
ALONE void dot(const W* w, Index w_next, const typename A::Number* x, Index x_next, Index count, Scalar* sums, Index next,
               Index valid) {
  typename A::Sum sum[UNITS][I];
#pragma GCC unroll 4
  for (int r = 0; r < UNITS; ++r)
#pragma GCC unroll 6
    for (int i = 0; i < I; ++i) sum[r][i] = typename A::Sum{};
  const W* row[UNITS];
  for (int r = 0; r < UNITS; ++r) row[r] = w + (r < valid ? r : 0) * w_next;
  for (Index at = 0; at < count; at += A::FOLD * LANES) {
    Bits32 weights[UNITS];
#pragma GCC unroll 4
    for (int r = 0; r < UNITS; ++r) {
      if constexpr (sizeof(W) == sizeof(typename A::Number)) weights[r] = load_whole<Bits32>(row[r] + at);
      else weights[r] = (Bits32)load_all(row[r] + at);
      if (I > 1) __builtin_prefetch(row[r] + UNITS * w_next + at, 0, 3);  // what the next call reads
    }
#pragma GCC unroll 6
    for (int i = 0; i < I; ++i) {
      const Bits32 input = load_whole<Bits32>(x + i * x_next + at);
#pragma GCC unroll 4
      for (int r = 0; r < UNITS; ++r) sum[r][i] = add_products(A(), sum[r][i], input, weights[r]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < I; ++i) {
    typename A::Sum four[4] = {};
#pragma GCC unroll 4
    for (int r = 0; r < UNITS; ++r) four[r] = sum[r][i];
    Scalar own[4];
    totals(four, own);
    for (int r = 0; r < valid; ++r) sums[i * next + r] += own[r];
  }
}

template <class A, class W, class Out> struct ForwardOf {
  using Number = typename A::Number;
  using Scalar = std::conditional_t<std::is_same<A, Int8>::value, std::int32_t, float>;
  static constexpr Index STEP = LANES * 4 / sizeof(Number);  // numbers of a vector
  static constexpr bool DIRECT = sizeof(W) == sizeof(Number);  // weights are multiplied as they lie
  static constexpr bool WIDENS = sizeof(W) < sizeof(Number);   // or widened on their way, if few images share them
  const Forward& job;
  Index chunk = CHUNK / Index(sizeof(Number));
  Index inputs = rounded_up(job.k, chunk);
  Number* x = nullptr;  // a chunk of all images, then the next

  // Units first to last, of all images.
  void units(Index first, Index last) {
    const Index block = 12 * UNITS;
    Scalar* sums = reinterpret_cast<Scalar*>(scratch(0, block * job.n * Index(sizeof(Scalar))));
    Number* copied = reinterpret_cast<Number*>(scratch(1, block * chunk * Index(sizeof(Number))));
    for (Index u = first; u < last; u += block) {
      const Index own = std::min(block, last - u);
      std::memset(static_cast<void*>(sums), 0, std::size_t(own * job.n) * sizeof(Scalar));
      for (Index k = 0; k < job.k; k += chunk) {
        const Index used = std::min(chunk, job.k - k), room = rounded_up(used, STEP);
        const W* from = static_cast<const W*>(job.w) + u * job.k + k;
        const W* after = k + chunk < job.k ? from + chunk : from - k + own * job.k;
        const Index rows = k + chunk < job.k ? own : std::min(block, last - u - own);
        const Index lines = std::min(chunk, k + chunk < job.k ? job.k - k - chunk : job.k) * Index(sizeof(W)) / 64;
        Ahead ahead{reinterpret_cast<const char*>(after), job.k * Index(sizeof(W)), rows, lines,
                    rounds() * ((own + UNITS - 1) / UNITS)};
        if (DIRECT && used == room) {
          multiply(reinterpret_cast<const Number*>(from), job.k, k, room, own, sums, ahead);
          continue;
        }
        if constexpr (WIDENS) {
          if (rounds() == 1 && used == room) {
            multiply(from, job.k, k, room, own, sums, ahead);
            continue;
          }
        }
        for (Index r = 0; r < own; ++r) take<A>(copied + r * chunk, from + r * job.k, used, room, {});
        multiply(copied, chunk, k, room, own, sums, ahead);
      }
      finish(sums, u, own);
    }
  }

  Index rounds() const { return (job.n + MOST_IMAGES - 1) / MOST_IMAGES; }

  template <class T> void multiply(const T* w, Index w_next, Index k, Index room, Index own, Scalar* sums, Ahead& ahead) {
    const Index images = (job.n + rounds() - 1) / rounds();
    for (Index i = 0; i < job.n; i += images) {
      const Index count = std::min(images, job.n - i);
      const Number* from = x + k * job.n + i * chunk;
      for (Index r = 0; r < own; r += UNITS) {
        const Index valid = std::min<Index>(UNITS, own - r);
        Scalar* to = sums + i * own + r;
        ahead.some();
        const auto with = [&](auto images) {
          dot<A, decltype(images)::value>(w + r * w_next, w_next, from, chunk, room, to, own, valid);
        };
        switch (count) {
          case 1: with(std::integral_constant<int, 1>()); break;
          case 2: with(std::integral_constant<int, 2>()); break;
          case 3: with(std::integral_constant<int, 3>()); break;
          case 4: with(std::integral_constant<int, 4>()); break;
          case 5: with(std::integral_constant<int, std::min(5, MOST_IMAGES)>()); break;
          default: with(std::integral_constant<int, MOST_IMAGES>());
        }
      }
    }
  }

  void finish(const Scalar* sums, Index u, Index own) {
    for (Index i = 0; i < job.n; ++i) {
      Out* out = static_cast<Out*>(job.out) + i * job.u + u;
      for (Index r = 0; r < own; ++r) {
        const float value = float(sums[i * own + r]) * (job.scale ? job.scale[u + r] : 1) + (job.bias ? job.bias[u + r] : 0);
        put(out[r], job.relu && value < 0 ? 0 : value);
      }
    }
  }

  bool run(Index threads) {
    Memory memory(job.n * inputs * Index(sizeof(Number)));
    if (!(x = reinterpret_cast<Number*>(memory.get()))) return false;
    const bool taken = parallel(job.n, job.n * inputs, threads, [&](Index first, Index last) {
      typed(job.x, job.x_dtype, [&](auto* from) {
        for (Index i = first; i < last; ++i)
          for (Index k = 0; k < job.k; k += chunk)
            take<A>(x + k * job.n + i * chunk, from + i * job.k + k, std::min(chunk, job.k - k), chunk, job.quantizer);
      });
    });
    const Index blocks = (job.u + UNITS - 1) / UNITS;
    return taken && parallel(blocks, job.k * job.u * std::max<Index>(1, job.n / 4), threads, [&](Index first, Index last) {
      units(first * UNITS, std::min(job.u, last * UNITS));
    });
  }
};

template <class A, class W> bool forward(const Forward& job, int out_dtype, Index threads) {
  if (out_dtype == BFLOAT16) return ForwardOf<A, W, Bfloat16>{job}.run(threads);
  return ForwardOf<A, W, float>{job}.run(threads);
}

template <class A> bool forward(const Forward& job, int out_dtype, Index threads) {
  if (job.w_dtype == BFLOAT16) return forward<A, Bfloat16>(job, out_dtype, threads);
  return forward<A, float>(job, out_dtype, threads);
}

// ---- backward -------------------------------------------------------------------------------------------------------

constexpr Index WIDTH = MOST * LANES, PANELS = 256 / WIDTH, ROWS = 256;  // a block of 256 columns and as many rows

// `rows` rows of `columns` numbers, `next` apart, packed into panels of units: FOLD rows to a unit, zeros all around.
template <class A, class From>
void pack_rows(Unit* to, const From* from, Index next, Index rows, Index columns) {
  const Index units = (rows + A::FOLD - 1) / A::FOLD;
  for (Index unit = 0; unit < units; ++unit) {
    for (Index c = 0; c < columns; c += LANES) {
      const Index left = std::min(LANES, columns - c);
      const From* own = from + unit * A::FOLD * next + c;
      Bits32 packed;
      if constexpr (A::FOLD == 2) {
        const Vector high = unit * 2 + 1 < rows ? load(own + next, left) : Vector{};
        packed = widen(rounded(load(own, left))) | widen(rounded(high)) << 16;
      } else {
        packed = (Bits32)load(own, left);
      }
      store_whole(to + (c / WIDTH * units + unit) * WIDTH + c % WIDTH, packed);
    }
  }
  if (columns % WIDTH)  // what is left of the last panel
    for (Index unit = 0; unit < units; ++unit)
      for (Index c = rounded_up(columns, LANES); c < rounded_up(columns, WIDTH); c += LANES)
        store_whole(to + (c / WIDTH * units + unit) * WIDTH + c % WIDTH, Bits32{});
}

// Rows of A (each `a_next` numbers from the one before) times one packed panel: rows × WIDTH sums, given row by row.
template <class A, class Each>
void multiply_panel(const typename A::Number* a, Index a_next, Index rows, Index units, const Unit* panel, Ahead& ahead,
                    Each each) {
  constexpr int R = tall(MOST);
  const Index segment = 0;
  for (Index i = 0; i < rows; i += R) {
    const char* at[R];
    for (int r = 0; r < R; ++r) at[r] = reinterpret_cast<const char*>(a + (i + r < rows ? i + r : i) * a_next);
    alignas(64) Unit tile[R * WIDTH];
    ahead.some();
    walk_kernel<A, MOST, R>(at, &segment, 1, units, panel, tile);
    for (Index r = 0; r < std::min<Index>(R, rows - i); ++r) each(i + r, tile + r * WIDTH);
  }
}

struct Backward {
  Index n, k, u;
  const void* g;
  int g_dtype;
};

template <class A, class G, class W, class Out>
bool grad_input(const Backward& job, const W* w, Out* out, Index threads) {
  using Number = typename A::Number;
  const Index next = rounded_up(job.u, A::FOLD), width = WIDTH * PANELS, blocks = (job.k + width - 1) / width;
  Memory memory(job.n * next * Index(sizeof(Number)));
  Number* g = reinterpret_cast<Number*>(memory.get());
  if (!g) return false;
  const G* given = static_cast<const G*>(job.g);
  for (Index i = 0; i < job.n; ++i) take<A>(g + i * next, given + i * job.u, job.u, next, {});
  return parallel(blocks, job.n * job.k * job.u, threads, [&](Index first, Index last) {
    Unit* packed = reinterpret_cast<Unit*>(scratch(0, ROWS * width * 4));
    float* sums = reinterpret_cast<float*>(scratch(1, job.n * width * 4));
    for (Index block = first; block < last; ++block) {
      const Index start = block * width, columns = std::min(width, job.k - start);
      std::memset(sums, 0, std::size_t(job.n * width) * 4);
      for (Index u = 0; u < job.u; u += ROWS) {
        const Index rows = std::min(ROWS, job.u - u), units = (rows + A::FOLD - 1) / A::FOLD;
        pack_rows<A>(packed, w + u * job.k + start, job.k, rows, columns);
        const Index after = u + rows < job.u ? u + rows : 0, beside = after ? 0 : width;
        const Index lines = std::max<Index>(0, std::min(width, job.k - start - beside)) * Index(sizeof(W)) / 64;
        Ahead ahead{reinterpret_cast<const char*>(w + after * job.k + start + beside), job.k * Index(sizeof(W)),
                    std::min(ROWS, job.u - after), lines, (columns + WIDTH - 1) / WIDTH * (job.n / tall(MOST) + 1)};
        for (Index panel = 0; panel * WIDTH < columns; ++panel)
          multiply_panel<A>(g + u, next, job.n, units, packed + panel * units * WIDTH, ahead, [&](Index i, const Unit* tile) {
            float* to = sums + i * width + panel * WIDTH;
            for (Index c = 0; c < WIDTH; c += LANES) store_all(to + c, load_all(to + c) + load_whole<Vector>(tile + c));
          });
      }
      for (Index i = 0; i < job.n; ++i)
        for (Index c = 0; c < columns; c += LANES)
          store(out + i * job.k + start + c, load_all(sums + i * width + c), std::min(LANES, columns - c));
    }
  });
}

template <class A, class G, class X>
bool grad_weights(const Backward& job, const X* x, float* weights, float* bias, Index threads) {
  using Number = typename A::Number;
  const Index next = rounded_up(job.n, A::FOLD), units = next / A::FOLD, width = WIDTH * PANELS;
  const Index blocks = (job.k + width - 1) / width;
  Memory memory(job.u * next * Index(sizeof(Number)));
  Number* g = reinterpret_cast<Number*>(memory.get());  // (U, N)
  if (!g) return false;
  const G* given = static_cast<const G*>(job.g);
  const bool turned = parallel((job.u + 63) / 64, job.u * job.n, threads, [&](Index first, Index last) {
    for (Index start = first * 64; start < std::min(job.u, last * 64); start += 64) {
      const Index end = std::min(job.u, start + 64);
      for (Index u = start; u < end; ++u) bias[u] = 0;
      for (Index i = 0; i < next; ++i)
        for (Index u = start; u < end; ++u) {
          const G one = i < job.n ? given[i * job.u + u] : G(0);
          bias[u] += number(one);
          put(g[u * next + i], one);
        }
    }
  });
  return turned && parallel(blocks, job.n * job.k * job.u, threads, [&](Index first, Index last) {
    Unit* packed = reinterpret_cast<Unit*>(scratch(0, units * width * 4));
    for (Index block = first; block < last; ++block) {
      const Index start = block * width, columns = std::min(width, job.k - start);
      pack_rows<A>(packed, x + start, job.k, job.n, columns);
      Ahead nothing{nullptr, 0, 0, 0, 1};
      constexpr Index GROUP = 8 * tall(MOST);  // units whose gradients stay at hand for all panels
      for (Index u = 0; u < job.u; u += GROUP)
        for (Index panel = 0; panel * WIDTH < columns; ++panel)
          multiply_panel<A>(g + u * next, next, std::min(GROUP, job.u - u), units, packed + panel * units * WIDTH, nothing,
                            [&](Index row, const Unit* tile) {
                              float* to = weights + (u + row) * job.k + start + panel * WIDTH;
                              for (Index c = 0; c < WIDTH; c += LANES)
                                if (panel * WIDTH + c < columns)
                                  stream(to + c, load_whole<Vector>(tile + c), std::min(LANES, columns - panel * WIDTH - c));
                            });
    }
    end_stream();
  });
}

}  // namespace

// `shape` is N, K, U. x (N, K), weights (U, K) -> out (N, U) of `out_dtype`, computed in `dtype`. In int8, `x` times
// `factor` plus `zero` is rounded to 0..127, and a unit's sums are multiplied by its `scale`; `bias` has what `zero` adds
// to them taken off. 0 where done.
KERNEL(full_forward)(const Index* shape, int dtype, const void* x, int x_dtype, const void* weights, int weights_dtype,
                     const float* bias, double factor, double zero, const float* scale, void* out, int out_dtype,
                     int relu, Index threads) {
  const Forward job{shape[0], shape[1], shape[2], x, weights, x_dtype, weights_dtype, bias, scale, out, relu != 0,
                    {float(factor), float(zero)}};
  if (dtype == INT8) return !forward<Int8, std::int8_t>(job, out_dtype, threads);
  if (dtype == BFLOAT16) return !forward<NativeBfloat16>(job, out_dtype, threads);
  return !forward<Float32>(job, out_dtype, threads);
}

// The gradient by the inputs: g (N, U) of `dtype`, weights (U, K) -> out (N, K) of `dtype`.
KERNEL(full_grad_input)(const Index* shape, int dtype, const void* g, const void* weights, int weights_dtype, void* out,
                        Index threads) {
  const Backward job{shape[0], shape[1], shape[2], g, dtype};
  return typed(weights, weights_dtype, [&](auto* w) {
    if (dtype == BFLOAT16) return !grad_input<NativeBfloat16, Bfloat16>(job, w, static_cast<Bfloat16*>(out), threads);
    return !grad_input<Float32, float>(job, w, static_cast<float*>(out), threads);
  });
}

// The gradients by weights (U, K) and biases (U), in float32: x (N, K), g (N, U) of `dtype`.
KERNEL(full_grad_weights)(const Index* shape, int dtype, const void* x, int x_dtype, const void* g, float* weights,
                          float* bias, Index threads) {
  const Backward job{shape[0], shape[1], shape[2], g, dtype};
  return typed(x, x_dtype, [&](auto* inputs) {
    if (dtype == BFLOAT16) return !grad_weights<NativeBfloat16, Bfloat16>(job, inputs, weights, bias, threads);
    return !grad_weights<Float32, float>(job, inputs, weights, bias, threads);
  });
}
