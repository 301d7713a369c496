"""The paper's claims as data: what it says, its figures, and what is compared to check it.

A comparison is of one metric of two arms, or of two metrics of one; `better` is the side for which the paper claims the
lower value (or the higher, as `direction` says). Differences are written so that more than 0 is the claimed side.
Section numbers are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alexnet.errors import UsageError
from alexnet.reproduce.scales import BASE

ERROR, VIEWS, GAP = "top1_error", "top1_error_views", "generalization_gap"
ENSEMBLE = "ensemble_error"  # of the average of an arm's networks
SMALL = ("digits", "cifar10")
REAL = ("cifar10", "tiny-imagenet", "imagenet")
ALL = ("digits", *REAL)


@dataclass(frozen=True)
class Side:
    """What is measured of which arm."""

    arm: str
    metric: str = ERROR


@dataclass(frozen=True)
class Comparison:
    """Two sides, at which scales they are measured, and over what the interval is.

    `over` is seeds, or the test images where the paper speaks of given networks. Those that do not decide stand beside
    the verdict.
    """

    name: str
    better: Side
    worse: Side
    scales: tuple[str, ...] = ALL
    direction: Literal["lower", "higher"] = "lower"
    unit: str = "points"
    over: Literal["seeds", "images"] = "seeds"
    grain: float = 0.0  # the step in which values come, where they are no errors
    decides: bool = True


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper says and printed, and how it is checked. `note` says what a reader should know."""

    number: int
    section: str
    title: str
    statement: str
    paper: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    note: str = ""

    @property
    def heading(self) -> str:
        """Its number and title."""
        return f"{self.number}. {self.title}" if self.number else f"Beside the claims: {self.title}"

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales at which something of it is measured."""
        return tuple(scale for scale in ALL if any(scale in one.scales for one in self.comparisons))


def _without(arm: str, scales: tuple[str, ...] = ALL, metric: str = ERROR, **rest: object) -> Comparison:
    """The paper's network against an arm that lacks something."""
    what = "" if metric == ERROR else f", {metric.replace('_', ' ')}"
    return Comparison(f"{BASE} against {arm}{what}", Side(BASE, metric), Side(arm, metric), scales, **rest)  # type: ignore[arg-type]


def _rival(arm: str, rival: str, scales: tuple[str, ...]) -> Comparison:
    """A network's views averaged against a baseline, over test images."""
    return Comparison(f"{arm} against {rival}", Side(arm, VIEWS), Side(rival, ERROR), scales, over="images")


def _separation(arm: str, scales: tuple[str, ...]) -> Comparison:
    """How far the columns' first kernels differ in colour, against the same kernels dealt out at random."""
    return Comparison(
        "difference of the columns' colour index, against kernels permuted",
        Side(arm, "colour_separation"),
        Side(arm, "colour_separation_permuted"),
        scales,
        direction="higher",
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        1,
        "§3.1",
        "ReLU learns faster than tanh",
        "A four-layer convolutional network with ReLUs reaches a training error of 25 % on CIFAR-10 several times "
        "sooner than the same network with tanh, without regularization and with rates chosen for each.",
        ("six times fewer epochs",),
        (
            Comparison(
                "epochs to 25 % training error",
                Side("relu-four-layer", "epochs_to_25"),
                Side("tanh-four-layer", "epochs_to_25"),
                SMALL,
                unit="epochs",
            ),
            Comparison(
                "seconds to 25 % training error",
                Side("relu-four-layer", "seconds_to_25"),
                Side("tanh-four-layer", "seconds_to_25"),
                SMALL,
                unit="s",
                decides=False,
            ),
            _without("tanh", SMALL, decides=False),
        ),
    ),
    Claim(
        2,
        "§3.2",
        "Two columns beat one with half the kernels",
        "The network on two GPUs has a lower error than one with half as many kernels in each convolutional layer on "
        "one GPU.",
        ("−1.7 points top-1, −1.2 top-5",),
        (_without("one-column"),),
    ),
    Claim(
        3,
        "§3.3",
        "Local response normalization lowers the error",
        "Normalizing each activation by those of neighbouring kernels lowers the error, on CIFAR-10 too.",
        ("−1.4 points top-1, −1.2 top-5", "four-layer net on CIFAR-10: 13 % without, 11 % with"),
        (
            _without("no-lrn"),
            _without("lrn-across", SMALL, decides=False),
            _without("order-2012", SMALL, decides=False),
        ),
    ),
    Claim(
        4,
        "§3.4",
        "Overlapping pooling lowers the error",
        "Pooling 3×3 windows two pixels apart instead of 2×2 windows lowers the error, and such models overfit "
        "slightly less.",
        ("−0.4 points top-1, −0.3 top-5",),
        (_without("no-overlap"), _without("no-overlap", metric=GAP, decides=False)),
    ),
    Claim(
        5,
        "§4.1",
        "Crops and mirror images keep the network from overfitting",
        "Without random crops and mirror images the network overfits substantially.",
        ("no figure",),
        (_without("no-augmentation", metric=GAP), _without("no-augmentation", decides=False)),
    ),
    Claim(
        6,
        "§4.1",
        "Colour noise lowers the error",
        "Adding multiples of the principal components of the pixels' colours lowers the top-1 error.",
        ("more than −1 point top-1",),
        (_without("no-colour", REAL), _without("literal-colour", ("cifar10",), decides=False)),
    ),
    Claim(
        7,
        "§4.2",
        "Dropout keeps the network from overfitting",
        "Without dropout the network overfits substantially; with it, it needs about twice the iterations to converge.",
        ("about twice the iterations",),
        (
            _without("no-dropout", metric=GAP),
            Comparison(
                "epochs to converge, with dropout over without",
                Side("no-dropout", "epochs_to_converge"),
                Side(BASE, "epochs_to_converge"),
                unit="epochs",
                grain=1,
                decides=False,
            ),
            _without("no-dropout", decides=False),
        ),
    ),
    Claim(
        8,
        "§5",
        "Weight decay lowers even the training error",
        "A small weight decay is not merely a regularizer: it reduces the model's training error.",
        ("no figure",),
        (_without("no-decay", SMALL, "train_error"), _without("no-decay", SMALL, decides=False)),
    ),
    Claim(
        9,
        "§7",
        "Depth matters",
        "Removing any of the middle layers costs about two points of top-1 error.",
        ("about +2 points top-1",),
        (
            _without("no-conv3", SMALL),
            _without("no-conv4", ("cifar10",)),
            _without("no-conv5", ("cifar10",)),
        ),
    ),
    Claim(
        10,
        "§4.1",
        "Ten views beat the centre view",
        "Averaging the predictions for ten patches of an image, the corners, the centre and their mirror images, "
        "lowers the error.",
        ("39.0 % / 18.3 % → 37.5 % / 17.0 %",),
        (
            Comparison("ten views against the centre", Side(BASE, VIEWS), Side(BASE, ERROR)),
            Comparison(
                "top-5, ten views against the centre",
                Side(BASE, "top5_error_views"),
                Side(BASE, "top5_error"),
                REAL,
                decides=False,
            ),
        ),
    ),
    Claim(
        11,
        "§6",
        "Five networks averaged beat one",
        "Averaging the predictions of five similar networks lowers the error.",
        ("40.7 % / 18.2 % → 38.1 % / 16.4 %",),
        (
            Comparison(
                "five nets averaged against their mean",
                Side(BASE, ENSEMBLE),
                Side(BASE, VIEWS),
                over="images",
            ),
        ),
        note="The interval is over test images, for the given networks.",
    ),
    Claim(
        12,
        "§6",
        "Pre-training on more categories lowers the error",
        "A network with a sixth convolution, trained to tell apart the categories of a larger set and then fine-tuned, "
        "has a lower error than one trained on the target set alone.",
        ("40.7 % / 18.2 % → 39.0 % / 16.6 %", "seven nets, two of them pre-trained: 36.7 % / 15.4 %"),
        (
            Comparison(
                "fine-tuned against from scratch",
                Side("fine-tuned", VIEWS),
                Side(BASE, VIEWS),
                ("cifar10",),
            ),
            Comparison(
                "fine-tuned against from scratch",
                Side("fine-tuned", VIEWS),
                Side("target-alone", VIEWS),
                ("tiny-imagenet",),
            ),
            Comparison(
                "fine-tuned against the same network from scratch",
                Side("fine-tuned", VIEWS),
                Side("conv6", VIEWS),
                ("cifar10",),
                decides=False,
            ),
        ),
        note="At cifar10 the larger set is Tiny ImageNet; at tiny-imagenet its first 150 classes, and the target the "
        "other 50.",
    ),
    Claim(
        13,
        "§6",
        "The network beats sparse coding and SIFT with Fisher vectors",
        "The network's error is far below that of the best entries before it.",
        ("37.5 % / 17.0 % against 47.1 % / 28.2 % (sparse coding) and 45.7 % / 25.7 % (SIFT + FVs)",),
        (
            _rival(BASE, "sparse-coding", ("digits", "tiny-imagenet", "imagenet")),
            _rival(BASE, "sift-fv", ("digits", "tiny-imagenet", "imagenet")),
            _rival("full-schedule", "sparse-coding", ("cifar10",)),
            _rival("full-schedule", "sift-fv", ("cifar10",)),
        ),
        note="The interval is over test images, for the given networks.",
    ),
    Claim(
        14,
        "§6",
        "It holds with ten thousand categories",
        "On the 10,184 categories of ImageNet's Fall 2009 release the network with a sixth convolution is far below "
        "the best published error.",
        ("67.4 % / 40.9 % against 78.1 % / 60.9 %",),
        (
            Comparison(
                "conv6 net against SIFT + Fisher vectors, 200 categories",
                Side("conv6", ERROR),
                Side("sift-fv", ERROR),
                ("tiny-imagenet",),
                over="images",
            ),
        ),
        note="Fall 2009 is not to be had; the 200 categories of Tiny ImageNet are the most that is measured here.",
    ),
    Claim(
        15,
        "§6.1",
        "The two columns specialize",
        "In every run the kernels of one column's first layer become largely colour-agnostic, those of the other "
        "largely colour-specific.",
        ("figure 3",),
        (
            _separation(BASE, ("cifar10",)),
            _separation("wide", ("tiny-imagenet",)),
        ),
    ),
    Claim(
        16,
        "§6.1",
        "The last hidden layer knows what pictures show",
        "The training images whose activations are nearest to a test image's are of its kind, though generally far "
        "away in pixels.",
        ("figure 4",),
        (
            Comparison(
                "share of the six nearest with the query's class, by activations against by pixels",
                Side(BASE, "neighbours_by_features"),
                Side(BASE, "neighbours_by_pixels"),
                direction="higher",
            ),
            Comparison(
                "distance in pixels of those neighbours, against the nearest in pixels",
                Side(BASE, "pixel_distance_by_features"),
                Side(BASE, "pixel_distance_by_pixels"),
                direction="higher",
                unit="% of a random image's",
            ),
        ),
    ),
    Claim(
        17,
        "§6.1",
        "Short binary codes make that search cheap",
        "An auto-encoder could make short binary codes of these activations; proposed in the paper, not done.",
        ("no figure",),
        note="Measured with the image search.",
    ),
    Claim(
        18,
        "§3.3, §5",
        "ReLUs need no input normalization; initial biases of 1 speed the start",
        "ReLUs learn without input normalization, and biases of 1 where ReLUs follow speed the early stages of "
        "learning.",
        ("no figure",),
        (
            _without("no-biases", metric="steps_to_start", unit="steps", grain=10),
            Comparison(
                "without the mean image: its error against chance",
                Side("no-mean", ERROR),
                Side("no-mean", "chance_error"),
                SMALL,
            ),
        ),
    ),
)

# What the paper chose without arguing for it; number 0.
CHOICES = Claim(
    0,
    "§3.5",
    "Softmax against the hinge loss",
    "The paper trains by multinomial logistic regression; the loss of support vector machines would be the other "
    "choice.",
    ("no claim",),
    (_without("hinge", SMALL),),
    note="Both at the same learning rate.",
)


EVERYTHING = (*CLAIMS, CHOICES)


def claim_of(number: int) -> Claim:
    """The claim of a number. Raises UsageError for one that does not exist."""
    if number == 0:
        return CHOICES
    if not 1 <= number <= len(CLAIMS):
        raise UsageError(f"there is no claim {number}; they are 1 to {len(CLAIMS)}, and `alexnet reproduce` lists them")
    return CLAIMS[number - 1]


def arms_of(claim: Claim, scale: str) -> list[str]:
    """The arms that a claim compares at a scale, each once."""
    sides = [side for one in claim.comparisons if scale in one.scales for side in (one.better, one.worse)]
    return list(dict.fromkeys(side.arm for side in sides))
