// The sizes of a convolution, and images with zeros around them.

#pragma once

#include "products.h"

namespace {

// n images of h x w positions and c maps become p x q positions and o kernels, both in `groups` groups.
struct Shape {
  Index n, h, w, c, groups, o, size, stride, top, left, p, q;
  Index own_maps() const { return c / groups; }
  Index own_kernels() const { return o / groups; }
  Index rows() const { return (p - 1) * stride + size; }  // of a padded image, as far as kernels reach
  Index columns() const { return (q - 1) * stride + size; }
};

inline Shape shape_of(const Index* g) {
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11]};
}

// n numbers, those of them zeroed whose `gate` is not above zero.
template <class To, class From>
void copy_row(To* __restrict to, const From* __restrict from, const From* gate, Index n, const Quantizer&) {
  if (gate) {
    for (Index i = 0; i < n; ++i) put(to[i], number(gate[i]) > 0 ? from[i] : From(0));
  } else if (std::is_same<To, From>::value) {
    std::memcpy(static_cast<void*>(to), from, std::size_t(n) * sizeof(To));
  } else {
    for (Index i = 0; i < n; ++i) put(to[i], from[i]);
  }
}

template <class From>
void copy_row(std::uint8_t* __restrict to, const From* __restrict from, const From*, Index n, const Quantizer& q) {
  for (Index i = 0; i < n; ++i) to[i] = q(number(from[i]));
}

// One image of the maps with zeros around it, which are `q.zero` in int8.
template <class To, class From>
void pad_image(To* to, const From* from, const From* gate, const Shape& s, const Quantizer& q = {}) {
  const int zero = sizeof(To) == 1 ? int(q.zero) : 0;
  const Index line = s.columns() * s.c;
  const Index width = std::min(s.w, s.columns() - s.left) * s.c, height = std::min(s.h, s.rows() - s.top);
  std::memset(static_cast<void*>(to), zero, std::size_t(s.top * line) * sizeof(To));
  for (Index row = 0; row < height; ++row) {
    To* at = to + (row + s.top) * line;
    std::memset(static_cast<void*>(at), zero, std::size_t(s.left * s.c) * sizeof(To));
    copy_row(at + s.left * s.c, from + row * s.w * s.c, gate ? gate + row * s.w * s.c : nullptr, width, q);
    const Index end = s.left * s.c + width;
    std::memset(static_cast<void*>(at + end), zero, std::size_t(line - end) * sizeof(To));
  }
  const Index rest = (s.rows() - s.top - height) * line;
  std::memset(static_cast<void*>(to + (s.top + height) * line), zero, std::size_t(rest) * sizeof(To));
}

}  // namespace
