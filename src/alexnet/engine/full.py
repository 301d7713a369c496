"""Calls of the compiled fully-connected layers.

Shapes: `N` images, `K` inputs, `U` units. Arguments are addresses: inputs (N, K), weights (U, K), biases (U,) float32.
"""

from __future__ import annotations

from alexnet.engine.library import Dtype, call, int64s


class Full:
    """A fully-connected layer of `units` U for N images of K inputs. Its calls raise MemoryError."""

    def __init__(self, images: int, inputs: int, units: int, dtype: Dtype) -> None:
        self.dtype = dtype  # of the products
        self._sizes = int64s((images, inputs, units))

    def forward(
        self, x: int, x_dtype: Dtype, weight: int, weight_dtype: Dtype, bias: int, out: int, out_dtype: Dtype,
        threads: int, relu: bool = False, quantizer: tuple[float, float] = (0.0, 0.0), scale: int | None = None,
    ) -> None:  # fmt: skip
        """Write `out` (N, U), rectified where `relu`.

        In int8 the quantizer, a factor and a zero, makes numbers 0..127 of `x`; `scale` (U,) float32 is what a unit of
        each sum is worth, and `bias` lacks what the zero adds.
        """
        call(
            "full_forward", self._sizes, self.dtype, x, x_dtype, weight, weight_dtype, bias, *quantizer, scale, out,
            out_dtype, relu, threads,
        )  # fmt: skip

    def grad_input(self, grad: int, weight: int, weight_dtype: Dtype, out: int, threads: int) -> None:
        """`grad` (N, U) → `out` (N, K), both of this layer's dtype."""
        call("full_grad_input", self._sizes, self.dtype, grad, weight, weight_dtype, out, threads)

    def grad_weights(self, x: int, x_dtype: Dtype, grad: int, weight: int, bias: int, threads: int) -> None:
        """Write the gradients by the weights (U, K) and biases (U,), both float32."""
        call("full_grad_weights", self._sizes, self.dtype, x, x_dtype, grad, weight, bias, threads)
