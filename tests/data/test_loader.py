"""Feeding: each image once an epoch, the same batches however they are made."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.dataset import ArraySplit
from alexnet.data.loader import Feed, order
from alexnet.data.readers.open import open_source
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError

SIZE = 12


def numbered(n):
    """Images whose pixels say which they are and where in them one is."""
    images = np.zeros((n, SIZE, SIZE, 3), np.uint8)
    images[..., 0] = np.arange(n)[:, None, None] % 256
    images[..., 1] = np.arange(SIZE)[:, None]
    images[..., 2] = np.arange(SIZE)
    return ArraySplit("train", images, np.arange(n, dtype=np.int64) % 7, [f"image-{i}" for i in range(n)])


def corners(epoch, step, n):
    rng = np.random.default_rng([epoch, step])
    return rng.integers(0, SIZE - 8 + 1, (n, 2))


def as_lists(batches):
    return [(b.step, b.images.numpy().tobytes(), b.labels.tolist(), b.positions.tolist()) for b in batches]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(0, 2**70), st.integers(0, 1000))
def test_an_order_is_a_permutation_and_nothing_but_its_arguments(n, seed, epoch):
    found = order(n, seed, epoch)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(n))
    assert (found == order(n, seed, epoch)).all()


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(order(50, seed, epoch)) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100


def test_an_order_is_the_same_on_every_machine():
    assert order(10, 2012, 3).tolist() == [0, 8, 2, 1, 4, 3, 6, 5, 9, 7]


def test_orders_favour_no_place():
    places = np.array([order(20, 0, epoch).tolist().index(5) for epoch in range(2000)])
    assert np.bincount(places, minlength=20).min() > 60 and np.bincount(places).max() < 145


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 25),
    workers=st.integers(1, 5),
    resident=st.booleans(),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_an_epoch_is_a_partition_of_the_images(n, batch, workers, resident, epoch, shuffle):
    feed = Feed(numbered(n), SIZE, batch, seed=3, shuffle=shuffle, workers=workers, memory=1 << 30 if resident else 0)
    batches = list(feed.epoch(epoch))
    assert [b.step for b in batches] == list(range(feed.steps)) and feed.steps == -(-n // batch)
    positions = np.concatenate([b.positions for b in batches])
    assert sorted(positions.tolist()) == list(range(n))
    assert positions.tolist() == (order(n, 3, epoch) if shuffle else np.arange(n)).tolist()
    assert [len(b.labels) for b in batches[:-1]] == [batch] * (feed.steps - 1)
    for b in batches:
        assert b.images.shape == (len(b.labels), SIZE, SIZE, 3) and b.images.dtype == torch.uint8
        assert b.images.is_contiguous() and b.labels.dtype == torch.int64 and b.waited >= 0
        assert (b.images[:, 0, 0, 0].numpy() == b.positions % 256).all()
        assert (b.labels.numpy() == b.positions % 7).all()


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, SIZE + 6), crop=st.integers(1, 20), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_crops_are_cut_where_they_should_be(size, crop, n, seed):
    crop = min(crop, size)
    rng = np.random.default_rng(seed)
    cuts = rng.integers(0, size - crop + 1, (n, 2))
    split = numbered(n)
    whole = {m: next(Feed(split, size, n, 0, shuffle=False, memory=m).epoch(0)).images for m in (0, 1 << 30)}
    assert torch.equal(whole[0], whole[1 << 30])
    for memory in whole:
        feed = Feed(split, size, n, 0, crop=crop, offsets=lambda e, s, k: cuts, shuffle=False, memory=memory)
        images = next(feed.epoch(0)).images
        for i, (row, column) in enumerate(cuts):
            assert torch.equal(images[i], whole[0][i, row : row + crop, column : column + crop])


def test_without_offsets_the_centre_is_cut():
    batch = next(Feed(numbered(3), SIZE, 3, 0, crop=8, shuffle=False).epoch(0))
    assert batch.images[0, 0, 0].tolist() == [0, 2, 2] and batch.images[0, -1, -1].tolist() == [0, 9, 9]


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7, 9])
def test_an_epoch_can_be_entered_at_any_step(start):
    feed = Feed(numbered(65), SIZE, 10, seed=5, crop=8, offsets=corners)
    assert as_lists(feed.epoch(2, start=start)) == as_lists(feed.epoch(2))[start:]


def test_starting_late_reads_no_earlier_image(monkeypatch):
    split = numbered(40)
    read = []
    monkeypatch.setattr(split, "read", lambda i, shortest: read.append(i) or split.images[i])
    feed = Feed(split, SIZE, 10, seed=5, memory=0, shuffle=False)
    assert len(list(feed.epoch(0, start=3))) == 1 and sorted(read) == list(range(30, 40))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same source as itself and as stores of both codecs."""
    root = tmp_path_factory.mktemp("stores")
    split = open_source("digits")
    for codec in ("raw", "jpeg"):
        prepare(split, root / codec, size=16, codec=codec, shard_images=300)
    return {"digits": split, **{codec: open_source(root / codec) for codec in ("raw", "jpeg")}}


@pytest.mark.parametrize("kind", ["digits", "raw", "jpeg"])
def test_batches_do_not_depend_on_workers_or_memory(prepared, kind):
    split = prepared[kind].splits["train"]

    def feed(workers, memory):
        return Feed(
            split,
            16,
            100,
            1,
            crop=11,
            offsets=lambda e, s, n: np.full((n, 2), (s + e) % 6),
            workers=workers,
            memory=memory,
        )

    for epoch in (0, 3):
        expected = as_lists(feed(1, 0).epoch(epoch))
        for workers, memory in ((2, 0), (5, 0), (1, 1 << 30), (4, 1 << 30)):
            assert as_lists(feed(workers, memory).epoch(epoch)) == expected


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
@pytest.mark.parametrize("size", [16, 9, 20])
def test_a_store_feeds_what_it_holds_at_any_size(prepared, kind, size):
    split = prepared[kind].splits["test"]
    whole = next(Feed(split, size, len(split), 0, shuffle=False, memory=0).epoch(0)).images
    from alexnet.data.decode import square

    for i in (0, 100, 354):
        assert (whole[i].numpy() == square(split.read(i), size)).all()


class Broken(ArraySplit):
    """Every fifth image cannot be read."""

    def read(self, i, shortest=0):
        from alexnet.data.decode import decode

        return decode(b"nothing") if i % 5 == 0 else self.images[i]


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_unreadable_images_are_left_out_and_recorded(memory):
    whole = numbered(32)
    split = Broken("train", whole.images, whole.labels, [f"image-{i}" for i in range(32)])
    feed = Feed(split, SIZE, 8, seed=0, memory=memory)
    batches = list(feed.epoch(0))
    assert set(feed.unreadable) == {f"image-{i}" for i in range(0, 32, 5)}
    assert "known format" in feed.unreadable["image-0"]
    kept = np.concatenate([b.positions for b in batches])
    assert kept.tolist() == [i for i in order(32, 0, 0) if i % 5]
    for b in batches:
        assert len(b.images) == len(b.labels) == len(b.positions) and b.images.is_contiguous()
        assert (b.images[:, 0, 0, 0].numpy() == b.positions).all()


def test_a_batch_without_readable_images_is_left_out_and_the_steps_keep_their_numbers():
    whole = numbered(10)
    split = Broken("train", whole.images, whole.labels, [str(i) for i in range(10)])
    assert [b.step for b in Feed(split, SIZE, 1, 0, shuffle=False, memory=0).epoch(0)] == [1, 2, 3, 4, 6, 7, 8, 9]


def test_progress_counts_up_to_all_images_once():
    split, told = numbered(700), []
    feed = Feed(split, SIZE, 100, 0, progress=lambda done, total: told.append((done, total)))
    list(feed.epoch(0))
    assert told == [(256, 700), (512, 700), (700, 700)]
    list(Feed(split, SIZE, 50, 1, progress=lambda done, total: told.append((done, total))).epoch(0))
    assert len(told) == 3, "a second feed of the same split shares the decoded images"


def test_an_epoch_left_early_leaves_no_threads():
    import threading

    feed = Feed(numbered(60), SIZE, 4, 0, memory=0)
    batches = feed.epoch(0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_memory_stays_bounded_when_the_step_is_slow(monkeypatch):
    import time

    split, read = numbered(400), []
    monkeypatch.setattr(split, "read", lambda i, shortest: read.append(i) or split.images[i])
    batches = Feed(split, SIZE, 10, 0, memory=0).epoch(0)
    next(batches)
    time.sleep(0.05)
    assert len(read) <= 60
    batches.close()


@pytest.mark.parametrize(
    "wrong", [dict(size=0), dict(batch_size=0), dict(crop=13), dict(crop=0), dict(offsets=corners)]
)
def test_a_senseless_feed_is_refused(wrong):
    with pytest.raises(DataError):
        Feed(numbered(3), **{"size": SIZE, "batch_size": 2, "seed": 0, **wrong})


@pytest.mark.parametrize("cuts", [np.full((2, 2), 5), np.full((2, 2), -1), np.zeros((3, 2)), np.zeros(2)])
def test_offsets_outside_the_image_are_refused(cuts):
    with pytest.raises(DataError, match="offsets"):
        next(Feed(numbered(2), SIZE, 2, 0, crop=8, offsets=lambda e, s, n: cuts).epoch(0))


def test_memory_is_used_again_only_when_nobody_holds_a_batch_or_a_view_of_it():
    feed = Feed(numbered(400), SIZE, 10, seed=0, memory=0)
    held, views, places = [], [], set()
    for batch in feed.epoch(0):
        places.add(batch.images.data_ptr())
        if batch.step % 7 == 0:
            held.append((batch, batch.images.clone()))
        if batch.step % 7 == 3:
            views.append((batch.images.permute(0, 3, 1, 2)[2:], batch.images.permute(0, 3, 1, 2)[2:].clone()))
    assert len(places) < 25, "40 batches in fresh memory each"
    assert all(torch.equal(batch.images, copy) for batch, copy in held)
    assert all(torch.equal(view, copy) for view, copy in views)
