"""Augmentation against a plain loop over images: crop, mean image, mirror image and PCA colour noise (§2, §4.1)."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet import presets
from alexnet.config import Augment, Config, Data, Train
from alexnet.data.augment import Augmentation
from alexnet.data.batch import Batch, Draw, Ring
from alexnet.data.statistics import Statistics

SIZE, CROP = 20, 14
GOLDEN_OFFSETS = [[2, 3], [2, 1], [2, 3], [3, 0]]
GOLDEN_COINS = [True, True, True, False]
GOLDEN_FACTORS = [
    [1025955095, 1012960163, 1043303005],
    [1044608452, 1031951607, 3121324000],
    [1034152659, 3181018844, 3189369697],
    [3174858361, 3171273602, 3171747094],
]
MEAN = np.array([0.485, 0.456, 0.406])  # ImageNet's, of values from 0 to 1
STD = np.array([0.229, 0.224, 0.225])


def statistics(size: int = SIZE) -> Statistics:
    """A mean image that is nowhere symmetric, and a covariance of natural proportions."""
    rng = np.random.default_rng(4)
    basis, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    values = np.array([9000.0, 400.0, 25.0])
    return Statistics(
        mean_image=(rng.random((size, size, 3)) * 255).astype(np.float32),
        rgb_mean=np.array([120.0, 110.0, 100.0]),
        rgb_covariance=basis @ np.diag(values) @ basis.T,
        eigenvalues=values,
        eigenvectors=basis,
        count=10,
    )


def config(seed: int = 0, center: str = "mean-image", **augment: Any) -> Config:
    base = presets.preset("digits")  # takes 14×14
    return dataclasses.replace(
        base,
        data=Data(size=SIZE, center=center),  # type: ignore[arg-type]
        augment=Augment(**augment),
        train=Train(seed=seed),
    )


def augmentation(seed: int = 0, center: str = "mean-image", **augment: Any) -> Augmentation:
    return Augmentation(config(seed, center, **augment), statistics(), torch.device("cpu"))


def stored(n: int) -> np.ndarray:
    return np.random.default_rng(8).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def cut(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The crops that a loader hands over: image i from its row and column on."""
    return np.stack([image[r : r + CROP, c : c + CROP] for image, (r, c) in zip(images, offsets, strict=True)])


def draw_of(augment: Augmentation, n: int, epoch: int = 1, step: int = 0) -> Draw:
    """The draw of a batch of n images in the order of the split."""
    positions = step * n + np.arange(n)
    return augment.draws(epoch, positions, positions)


def batch_of(augment: Augmentation, images: np.ndarray, epoch: int = 1, step: int = 0) -> Batch:
    """The batch that a loader hands over."""
    draw = draw_of(augment, len(images), epoch, step)
    crops = torch.from_numpy(cut(images, draw.offsets))
    return Batch(crops, torch.zeros(len(images)), np.arange(len(images)), draw, 0.0, step)


def produced(augment: Augmentation, images: np.ndarray, epoch: int = 1, step: int = 0) -> np.ndarray:
    """What the network sees, brought back to (N, C, C, 3), float64."""
    out = augment.training(batch_of(augment, images, epoch, step))
    return out.permute(0, 2, 3, 1).numpy().astype(np.float64)


def expected(
    augment: Augmentation, images: np.ndarray, epoch: int, step: int, power: float = 0.5, divisor: float = 1.0
) -> np.ndarray:
    """The same by a loop over images, in float64: p1·a1·λ1^power + p2·a2·λ2^power + p3·a3·λ3^power is the noise."""
    known = statistics()
    draw = draw_of(augment, len(images), epoch, step)
    out = []
    for image, (row, column), mirrored, factors in zip(images, draw.offsets, draw.mirrored, draw.factors, strict=True):
        centred = image.astype(np.float64) - known.mean_image.astype(np.float64)
        crop = centred[row : row + CROP, column : column + CROP]
        if mirrored:
            crop = crop[:, ::-1]
        noise = np.zeros(3)
        for i in range(3):
            noise += known.eigenvectors[:, i] * float(factors[i]) * known.eigenvalues[i] ** power
        out.append((crop + noise) / divisor)
    return np.stack(out)


@given(
    st.integers(0, 2**31),
    st.integers(1, 500),
    st.lists(st.integers(0, 10**7), min_size=1, max_size=30, unique=True),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_a_draw_is_decided_by_seed_epoch_and_image_alone(seed: int, epoch: int, images: list[int], random: Any) -> None:
    one, other = augmentation(seed, colour=0.1), augmentation(seed, colour=0.1)
    positions = np.array(images)
    whole = one.draws(epoch, positions, np.arange(len(images)))
    np.random.seed(seed % 1000)
    chosen = np.array(random.sample(range(len(images)), random.randint(1, len(images))))
    some = other.draws(epoch, positions[chosen], 1000 + np.arange(len(chosen)))
    for ours, theirs in zip(vars(whole).values(), vars(some).values(), strict=True):
        np.testing.assert_array_equal(ours[chosen], theirs)


@pytest.mark.parametrize(("seed", "epoch", "step"), [(1, 1, 0), (0, 2, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0)])
def test_draws_of_other_seeds_epochs_and_images_differ(seed: int, epoch: int, step: int) -> None:
    first = draw_of(augmentation(0, colour=0.1), 64)
    second = draw_of(augmentation(seed, colour=0.1), 64, epoch, step)
    assert not np.array_equal(first.offsets, second.offsets)
    assert not np.array_equal(first.mirrored, second.mirrored)
    assert not np.array_equal(first.factors, second.factors)


def test_no_two_steps_of_a_run_are_drawn_alike() -> None:
    augment = augmentation(colour=1.0)
    draws = {draw_of(augment, 4, epoch, step).factors.tobytes() for epoch in range(8) for step in range(8)}
    assert len(draws) == 64


def test_the_first_draws_of_a_run_are_the_same_on_every_machine() -> None:
    draw = draw_of(augmentation(2012, colour=0.1), 4)
    assert draw.offsets.tolist() == GOLDEN_OFFSETS
    assert draw.mirrored.tolist() == GOLDEN_COINS
    assert draw.factors.view(np.uint32).tolist() == GOLDEN_FACTORS


def test_crops_fall_on_every_place_equally_often() -> None:
    offsets = draw_of(augmentation(), 49_000).offsets
    counts = np.zeros((SIZE - CROP + 1, SIZE - CROP + 1))
    np.add.at(counts, (offsets[:, 0], offsets[:, 1]), 1)
    assert counts.shape == (7, 7)
    assert abs(counts - 1000).max() < 6 * np.sqrt(1000)


def test_half_of_the_images_are_mirrored() -> None:
    assert abs(draw_of(augmentation(), 40_000).mirrored.mean() - 0.5) < 6 * 0.5 / 200


def test_colour_factors_are_normal_with_the_deviation_of_the_paper() -> None:
    factors = draw_of(augmentation(colour=0.1), 40_000).factors
    assert factors.shape == (40_000, 3)
    np.testing.assert_allclose(factors.std(0), 0.1, rtol=0.03)
    np.testing.assert_allclose(factors.mean(0), 0, atol=0.003)
    assert abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.03


def test_images_of_a_batch_are_drawn_apart() -> None:
    draw = draw_of(augmentation(colour=0.1), 200)
    assert len({tuple(row) for row in draw.factors.tolist()}) == 200
    assert len({tuple(row) for row in draw.offsets.tolist()}) > 40


def test_32_consecutive_images_of_the_2012_source_share_crop_and_coin_but_not_colour() -> None:
    draw = draw_of(augmentation(shared=32, colour=0.1), 128 + 10)
    for first in range(0, 138, 32):
        group = slice(first, min(first + 32, 138))
        assert len({tuple(row) for row in draw.offsets[group].tolist()}) == 1
        assert len(set(draw.mirrored[group].tolist())) == 1
    assert len({tuple(row) for row in draw.offsets.tolist()}) > 1
    assert len({tuple(row) for row in draw.factors.tolist()}) == 138


def test_what_32_images_share_does_not_depend_on_the_size_of_the_batches() -> None:
    augment = augmentation(shared=32, colour=0.1)
    positions, places = np.random.default_rng(0).permutation(200), np.arange(200)
    whole = augment.draws(1, positions, places)
    for size in (1, 7, 100):
        parts = [augment.draws(1, positions[at : at + size], places[at : at + size]) for at in range(0, 200, size)]
        for name in ("offsets", "mirrored", "factors"):
            together = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(together, getattr(whole, name))


def test_without_crops_the_centre_is_taken_and_without_mirroring_nothing_is_mirrored() -> None:
    draw = draw_of(augmentation(crop=False, mirror=False), 50)
    assert (draw.offsets == (SIZE - CROP) // 2).all()
    assert not draw.mirrored.any()
    assert not draw.factors.any()


@pytest.mark.parametrize("change", [{"crop": False}, {"mirror": False}, {"colour": 0.0}])
def test_turning_one_kind_of_augmentation_off_leaves_the_draws_of_the_others(change: dict[str, Any]) -> None:
    both = {"crop": True, "mirror": True, "colour": 0.1}
    whole, less = (draw_of(augmentation(**{**both, **some}), 40, 3, 5) for some in ({}, change))
    kept = {"crop": "offsets", "mirror": "mirrored", "colour": "factors"}
    for kind, name in kept.items():
        if kind not in change:
            np.testing.assert_array_equal(getattr(whole, name), getattr(less, name))


@pytest.mark.parametrize(("crop", "mirror"), [(True, True), (True, False), (False, True), (False, False)])
def test_crop_mean_and_mirror_equal_a_loop_over_images(crop: bool, mirror: bool) -> None:
    augment, images = augmentation(crop=crop, mirror=mirror), stored(24)
    np.testing.assert_allclose(produced(augment, images), expected(augment, images, 1, 0), atol=1e-4)


def test_a_mirror_image_swaps_left_and_right() -> None:
    augment, images = augmentation(), stored(24)
    out, draw = produced(augment, images), draw_of(augment, 24)
    assert draw.mirrored.any() and not draw.mirrored.all()
    plain = produced(augmentation(mirror=False), images)
    for i, mirrored in enumerate(draw.mirrored):
        np.testing.assert_array_equal(out[i], plain[i, :, ::-1] if mirrored else plain[i])


@pytest.mark.parametrize(("scale", "power"), [("sqrt", 0.5), ("value", 1.0)])
def test_colour_noise_is_the_papers_sum_over_the_principal_components(scale: str, power: float) -> None:
    augment, images = augmentation(colour=0.1, colour_scale=scale), stored(24)
    np.testing.assert_allclose(produced(augment, images), expected(augment, images, 1, 0, power), rtol=1e-5, atol=1e-3)


def test_colour_noise_has_the_standard_deviation_along_each_component() -> None:
    known = statistics()
    augment = augmentation(crop=False, mirror=False, colour=0.1)
    plain = augmentation(crop=False, mirror=False)
    images = np.repeat(stored(1), 4000, 0)
    noise = (produced(augment, images) - produced(plain, images))[:, 0, 0]
    np.testing.assert_allclose((noise @ known.eigenvectors).std(0), 0.1 * np.sqrt(known.eigenvalues), rtol=0.05)


def test_colour_noise_is_the_same_at_every_pixel_of_an_image() -> None:
    images = stored(6)
    noise = produced(augmentation(colour=0.1), images) - produced(augmentation(), images)
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:, :1, :1], noise.shape), atol=1e-3)
    assert (abs(noise).max((1, 2, 3)) > 0.01).all()


def test_the_2012_source_divides_the_noisy_image_by_1_1() -> None:
    augment, images = augmentation(colour=0.1, colour_divisor=1.1), stored(12)
    np.testing.assert_allclose(
        produced(augment, images), expected(augment, images, 1, 0, divisor=1.1), rtol=1e-5, atol=1e-3
    )


def test_colour_noise_ends_after_its_last_epoch() -> None:
    images = stored(12)
    until, without = augmentation(colour=0.1, colour_until=68), augmentation()
    for epoch in (1, 67, 68):
        assert abs(produced(until, images, epoch) - produced(without, images, epoch)).max() > 0.01
    for epoch in (69, 70, 93):
        np.testing.assert_array_equal(produced(until, images, epoch), produced(without, images, epoch))


def test_imagenets_normalization_of_values_from_0_to_1() -> None:
    augment, images = augmentation(center="imagenet", mirror=False), stored(8)
    crops = cut(images, draw_of(augment, 8).offsets)
    np.testing.assert_allclose(produced(augment, images), (crops / 255 - MEAN) / STD, rtol=1e-5, atol=1e-5)


def test_the_network_gets_float32_maps_first_with_channels_last_memory() -> None:
    augment, images = augmentation(colour=0.1), stored(5)
    batch = batch_of(augment, images)
    for out in (augment.training(batch), augment.test(torch.from_numpy(images), mirror=True)):
        assert (out.dtype, tuple(out.shape)) == (torch.float32, (5, 3, CROP, CROP))
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_crops_handed_over_are_not_changed() -> None:
    augment, images = augmentation(colour=0.1), stored(5)
    batch = batch_of(augment, images)
    before = batch.images.clone()
    augment.training(batch)
    assert torch.equal(batch.images, before)


def test_a_batch_is_given_back_once_it_is_copied() -> None:
    augment, images = augmentation(colour=0.1), stored(5)
    ring = Ring((5, CROP, CROP, 3))
    lease = ring.take()
    batch = dataclasses.replace(batch_of(augment, images), lease=lease)
    augment.training(batch)
    assert ring.take().memory.data_ptr() == lease.memory.data_ptr()


def test_an_empty_batch_goes_through() -> None:
    augment = augmentation(colour=0.1)
    draw = draw_of(augment, 0)
    batch = Batch(torch.zeros(0, CROP, CROP, 3, dtype=torch.uint8), torch.zeros(0), np.zeros(0), draw, 0.0, 0)
    assert augment.training(batch).shape == (0, 3, CROP, CROP)


@pytest.mark.parametrize(
    "kept", [[0, 1, 2, 4, 5, 7, 9], [3, 9], [9], [0], [0, 1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5]], ids=str
)
@pytest.mark.parametrize("shared", [1, 4])
def test_images_that_could_be_read_are_augmented_as_in_the_full_batch(kept: list[int], shared: int) -> None:
    augment, images = augmentation(colour=0.1, shared=shared), stored(10)
    batch = batch_of(augment, images, 2, 7)
    chosen = np.isin(np.arange(10), kept)
    assert batch.draw is not None
    some = dataclasses.replace(batch, images=batch.images[kept], draw=batch.draw.take(chosen))
    assert torch.equal(augment.training(some), augment.training(batch)[kept])


def test_the_centre_view_at_test_time() -> None:
    augment, images = augmentation(colour=0.1), stored(6)
    out = augment.test(torch.from_numpy(images)).permute(0, 2, 3, 1).numpy()
    edge = (SIZE - CROP) // 2
    inner = slice(edge, edge + CROP)
    np.testing.assert_allclose(out, (images - statistics().mean_image)[:, inner, inner], atol=1e-4)


def test_a_corner_view_and_its_mirror_image_at_test_time() -> None:
    augment, images = augmentation(), stored(6)
    edge = SIZE - CROP
    corner = (images - statistics().mean_image)[:, :CROP, edge:]
    plain = augment.test(torch.from_numpy(images), 0, edge).permute(0, 2, 3, 1).numpy()
    mirrored = augment.test(torch.from_numpy(images), 0, edge, mirror=True).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(plain, corner, atol=1e-4)
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])


def test_an_image_of_just_the_crops_size_has_one_place() -> None:
    base = dataclasses.replace(config(), data=Data(size=CROP))
    augment = Augmentation(base, statistics(CROP), torch.device("cpu"))
    assert not draw_of(augment, 10).offsets.any()


def test_an_odd_border_leaves_the_centre_inside() -> None:
    base = dataclasses.replace(config(), data=Data(size=CROP + 5))
    augment = Augmentation(base, statistics(CROP + 5), torch.device("cpu"))
    assert augment.center == 2


def test_a_covariance_with_a_vanishing_component_adds_no_noise_along_it() -> None:
    known = dataclasses.replace(statistics(), eigenvalues=np.array([9000.0, 400.0, 0.0]))
    augment = Augmentation(config(colour=0.1), known, torch.device("cpu"))
    images = stored(8)
    noise = produced(augment, images) - produced(augmentation(), images)
    assert abs(noise @ known.eigenvectors[:, 2]).max() < 1e-3
