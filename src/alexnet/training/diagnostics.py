"""Warnings for a run that does not learn: a loss at chance or above, few classes answered, ReLUs mostly dead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.evaluation.metrics import Measurement
from alexnet.model.alexnet import AlexNet
from alexnet.progress import Progress
from alexnet.training.parallel import unwrap

AFTER = 1000  # steps a faithful recipe may stay at chance
EARLY = 300  # steps before which a validation tells nothing, unless it is the last
ABOVE = 1.1  # times the loss of guessing
EVERY = 500  # steps between two looks at the ReLUs
DEAD = 0.9  # share of a layer's maps or units that are silent for a whole batch


@dataclass
class DiagnosticsState:
    """What a checkpoint keeps, so that a resumed run warns as it would have."""

    smooth: float | None = None  # the loss, averaged over about 50 steps
    warned: tuple[str, ...] = ()


class Diagnostics:
    """Watches the loss and the activations, and says what to try, once for each problem."""

    def __init__(self, chance: float | None, progress: Progress) -> None:
        """`chance` is the loss of a network that has learnt nothing; None: not known."""
        self.chance, self.progress = chance, progress
        self.state = DiagnosticsState()

    def after_step(self, step: int, loss: float) -> None:
        """Record a step's mean loss."""
        state = self.state
        state.smooth = loss if state.smooth is None else 0.98 * state.smooth + 0.02 * loss
        if self.chance is not None and step == AFTER and state.smooth > 0.98 * self.chance:
            self._warn(
                "chance",
                f"after {step} steps the loss is still {state.smooth:.3f}, that of guessing "
                f"({self.chance:.3f}): try larger initial weights, smaller initial biases or another --optimizer.lr; "
                "with the paper's own weights a network may never start (docs/start.md says why)",
            )

    def after_validation(
        self, result: Measurement, best_error: float, loss: float, steps: int, over: bool = False
    ) -> None:
        """Look at an epoch's validation and its mean training `loss`; `over` when it was the last.

        `best_error` is the lowest top-1 error so far, percent.
        """
        if steps < EARLY and not over:
            return
        when, answered, present = f"after {steps} steps", result.answered, result.present
        if self.chance is not None and steps >= EARLY and loss > ABOVE * self.chance:
            self._warn(
                "above",
                f"{when} the loss is {loss:.4g}, above that of guessing ({self.chance:.3f}): the learning rate is "
                "likely too high, try a tenth of --optimizer.lr",
            )
        if answered is not None and present is not None and (answered == 1 or 3 * answered <= present) and present > 1:
            self._warn(
                "answered",
                f"{when} the network predicts only {answered} of {present} classes on the validation images: it has "
                "not learnt to tell them apart yet; if this stays, train for longer (--epochs), try a lower "
                "--optimizer.lr, or begin with weights that have seen more (--init MODEL)",
            )
        elif result.majority_error is not None and best_error >= result.majority_error:
            self._warn(
                "majority",
                f"{when} the least validation error, {best_error:.2f} %, is not better than always answering the most "
                f"frequent class, {result.majority_error:.2f} %: train for longer (--epochs), give more pictures, or "
                "begin with weights that have seen more (--init MODEL)",
            )

    def look(self, step: int, model: torch.nn.Module, images: Tensor) -> None:
        """Every `EVERY` steps look for dead ReLUs in a batch; images (N, 3, C, C) as the network takes them."""
        model = unwrap(model)
        if step % EVERY or not isinstance(model, AlexNet) or model.network.activation != "relu":
            return
        for name, share in dead_shares(model, images).items():
            if share > DEAD:
                self._warn(
                    name,
                    f"at step {step} {share:.0%} of {name} is silent for a whole batch: try a lower --optimizer.lr",
                )

    def _warn(self, matter: str, text: str) -> None:
        if matter not in self.state.warned:
            self.state.warned = (*self.state.warned, matter)
            self.progress.warn(text)


def dead_shares(model: AlexNet, images: Tensor) -> dict[str, float]:
    """For each ReLU layer the share of its maps or units that are 0 for every image and place; images (N, 3, C, C)."""
    names = [entry.name for entry in model.shapes if entry.name.startswith("relu")]
    shares = {}
    for name, values in model.taps(images[:64], names).items():
        alive = (values > 0).transpose(0, 1).flatten(1).any(1)
        shares[name] = 1 - float(alive.float().mean())
    return shares
