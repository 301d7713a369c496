"""Ensembles of several networks' kept predictions: the plain mean of their softmax outputs, or a weighted one (§6).

Nothing is predicted again. Shapes: `M` members, `N` images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import DataError, UsageError
from alexnet.inference.ensemble import normalized, search_weights, weighted_sum
from alexnet.reproduce.predictions import Predictions, check_same_images


@dataclass(frozen=True)
class Combination:
    """Several members' predictions of the same images, and those of their average; `weights` sum to 1."""

    members: tuple[Predictions, ...]
    weights: tuple[float, ...]
    average: Predictions

    def error(self, top: int = 1) -> float:
        """The top-`top` error of the average, percent."""
        return self.average.error(top)

    def members_error(self, top: int = 1) -> float:
        """The mean of the members' own errors, percent."""
        return sum(member.error(top) for member in self.members) / len(self.members)

    def gains(self, top: int = 1) -> NDArray[np.float64]:
        """By how many points the average errs less than the mean member, image by image, (N,), for `over_images`.

        100 where every member errs and the average does not, −100 the other way round; their mean is
        `members_error` − `error`.
        """
        members = np.mean([member.wrong(top) for member in self.members], axis=0)
        return 100 * (members - self.average.wrong(top))


def average(members: Sequence[Predictions], weights: Sequence[float] | None = None) -> Combination:
    """The average of members by weights, which are taken as parts of their sum; equal ones for None.

    Raises DataError for predictions of other images, or that kept no probabilities; UsageError for no member, and for
    weights that are negative, all zero or not one per member.
    """
    members = _checked(members, "members")
    parts = normalized(weights, len(members))
    outputs = [member.probabilities() for member in members]
    mean = np.minimum(weighted_sum(outputs, parts), 1)  # a sum of parts may round above 1
    return Combination(members, parts, Predictions.of(mean, members[0].labels, full=True))


def searched(members: Sequence[Predictions], validation: Sequence[Predictions]) -> Combination:
    """The average by the weights that are best on validation images, by coordinate descent as in the 2012 scripts.

    `validation` are the same members' predictions, in the same order, of images that `members` are not measured on.
    Raises as `average` does, and UsageError where there is not one for each member.
    """
    members, known = _checked(members, "members"), _checked(validation, "predictions of validation images")
    if len(known) != len(members):
        raise UsageError(
            f"{len(members)} members have {len(known)} predictions of validation images; give one for each"
        )
    if known[0].classes != members[0].classes:
        raise DataError(f"validation has {known[0].classes} classes, the measured images have {members[0].classes}")
    labels = known[0].labels.astype(np.int64)
    return average(members, search_weights([one.probabilities() for one in known], labels))


def _checked(members: Sequence[Predictions], what: str) -> tuple[Predictions, ...]:
    if not members:
        raise UsageError(f"no {what} are given; an ensemble needs at least one")
    check_same_images(list(members))
    return tuple(members)
