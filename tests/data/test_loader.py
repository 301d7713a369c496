"""Batches: each image once an epoch, the same batches however they are made."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.batch import Draw
from alexnet.data.dataset import ArraySplit
from alexnet.data.loader import BatchLoader
from alexnet.data.preprocess import square
from alexnet.data.random import integers, permutation, random_words
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import CODECS
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


def drawn(offsets):
    """A draw of these crop corners alone."""
    return Draw(offsets, np.zeros(len(offsets), bool), np.zeros((len(offsets), 3), np.float32))


def corners(epoch, positions, places):
    """Corners of crops of 8 that depend on epoch and image alone."""
    return drawn(integers(random_words((epoch,), positions, 2), SIZE - 8 + 1))


def as_lists(batches):
    return [(b.step, b.images.numpy().tobytes(), b.labels.tolist(), b.positions.tolist()) for b in batches]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(0, 2**70), st.integers(0, 1000))
def test_an_order_is_a_permutation_and_nothing_but_its_arguments(n, seed, epoch):
    found = permutation(n, seed, epoch)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(n))
    assert (found == permutation(n, seed, epoch)).all()


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(permutation(50, seed, epoch)) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100


def test_orders_favour_no_place():
    places = np.array([permutation(20, 0, epoch).tolist().index(5) for epoch in range(2000)])
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
    loader = BatchLoader(
        numbered(n), SIZE, batch, seed=3, shuffle=shuffle, workers=workers, memory=1 << 30 if resident else 0
    )
    batches = list(loader.epoch(epoch))
    assert [b.step for b in batches] == list(range(loader.steps)) and loader.steps == -(-n // batch)
    positions = np.concatenate([b.positions for b in batches])
    assert sorted(positions.tolist()) == list(range(n))
    assert positions.tolist() == (permutation(n, 3, epoch) if shuffle else np.arange(n)).tolist()
    assert [len(b.labels) for b in batches[:-1]] == [batch] * (loader.steps - 1)
    for b in batches:
        assert b.images.shape == (len(b.labels), SIZE, SIZE, 3) and b.images.dtype == torch.uint8
        assert b.images.is_contiguous() and b.labels.dtype == torch.int64 and b.wait_seconds >= 0
        assert (b.images[:, 0, 0, 0].numpy() == b.positions % 256).all()
        assert (b.labels.numpy() == b.positions % 7).all()


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, SIZE + 6), crop=st.integers(1, 20), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_crops_are_cut_where_they_should_be(size, crop, n, seed):
    crop = min(crop, size)
    rng = np.random.default_rng(seed)
    cuts = rng.integers(0, size - crop + 1, (n, 2))
    split = numbered(n)
    whole = {m: next(BatchLoader(split, size, n, 0, shuffle=False, memory=m).epoch(0)).images for m in (0, 1 << 30)}
    assert torch.equal(whole[0], whole[1 << 30])
    for memory in whole:
        loader = BatchLoader(
            split,
            size,
            n,
            0,
            crop=crop,
            draws=lambda epoch, positions, places: drawn(cuts),
            shuffle=False,
            memory=memory,
        )
        images = next(loader.epoch(0)).images
        for i, (row, column) in enumerate(cuts):
            assert torch.equal(images[i], whole[0][i, row : row + crop, column : column + crop])


def test_without_offsets_the_centre_is_cut():
    batch = next(BatchLoader(numbered(3), SIZE, 3, 0, crop=8, shuffle=False).epoch(0))
    assert batch.images[0, 0, 0].tolist() == [0, 2, 2] and batch.images[0, -1, -1].tolist() == [0, 9, 9]


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7, 9])
def test_an_epoch_can_be_entered_at_any_step(start):
    loader = BatchLoader(numbered(65), SIZE, 10, seed=5, crop=8, draws=corners)
    assert as_lists(loader.epoch(2, start=start)) == as_lists(loader.epoch(2))[start:]


def test_starting_late_reads_no_earlier_image(monkeypatch):
    split = numbered(40)
    read = []
    monkeypatch.setattr(split, "decode", lambda i, shortest: read.append(i) or split.images[i])
    loader = BatchLoader(split, SIZE, 10, seed=5, memory=0, shuffle=False)
    assert len(list(loader.epoch(0, start=3))) == 1 and sorted(read) == list(range(30, 40))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same source as itself and as stores of every codec."""
    root = tmp_path_factory.mktemp("stores")
    split = open_source("digits")
    for codec in CODECS:
        prepare(split, root / codec, size=16, codec=codec, shard_images=300)
    return {"digits": split, **{codec: open_source(root / codec) for codec in CODECS}}


@pytest.mark.parametrize("kind", ["digits", "yuv420", "raw", "jpeg"])
def test_batches_do_not_depend_on_workers_or_memory(prepared, kind):
    split = prepared[kind].splits["train"]

    def loader(workers, memory):
        return BatchLoader(
            split,
            16,
            100,
            1,
            crop=11,
            draws=lambda epoch, positions, places: drawn((positions[:, None] + [epoch, 1]) % 6),
            workers=workers,
            memory=memory,
        )

    for epoch in (0, 3):
        expected = as_lists(loader(1, 0).epoch(epoch))
        for workers, memory in ((2, 0), (5, 0), (1, 1 << 30), (4, 1 << 30)):
            assert as_lists(loader(workers, memory).epoch(epoch)) == expected


@pytest.mark.parametrize("kind", ["yuv420", "raw", "jpeg"])
@pytest.mark.parametrize("size", [16, 9, 20])
def test_a_store_feeds_what_it_holds_at_any_size(prepared, kind, size):
    split = prepared[kind].splits["test"]
    whole = next(BatchLoader(split, size, len(split), 0, shuffle=False, memory=0).epoch(0)).images
    for i in (0, 100, 354):
        assert (whole[i].numpy() == square(split.decode(i), size)).all()


class Broken(ArraySplit):
    """Every fifth image cannot be read."""

    def decode(self, i, shortest=0):
        from alexnet.data.decode import decode

        return decode(b"nothing") if i % 5 == 0 else self.images[i]


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_unreadable_images_are_left_out_and_recorded(memory):
    whole = numbered(32)
    split = Broken("train", whole.images, whole.labels, [f"image-{i}" for i in range(32)])
    loader = BatchLoader(split, SIZE, 8, seed=0, memory=memory)
    batches = list(loader.epoch(0))
    assert set(loader.unreadable) == {f"image-{i}" for i in range(0, 32, 5)}
    assert "known format" in loader.unreadable["image-0"]
    kept = np.concatenate([b.positions for b in batches])
    assert kept.tolist() == [i for i in permutation(32, 0, 0) if i % 5]
    for b in batches:
        assert len(b.images) == len(b.labels) == len(b.positions) and b.images.is_contiguous()
        assert (b.images[:, 0, 0, 0].numpy() == b.positions).all()


def test_a_batch_without_readable_images_is_empty_and_still_there():
    whole = numbered(10)
    split = Broken("train", whole.images, whole.labels, [str(i) for i in range(10)])
    loader = BatchLoader(split, SIZE, 1, 0, crop=8, draws=corners, shuffle=False, memory=0)
    batches = list(loader.epoch(0))
    assert [(b.step, len(b.labels)) for b in batches] == [(step, int(step % 5 > 0)) for step in range(10)]
    assert batches[5].images.shape == (0, 8, 8, 3) and batches[5].draw.offsets.shape == (0, 2)


def test_progress_counts_up_to_all_images_once():
    split, told = numbered(700), []
    loader = BatchLoader(split, SIZE, 100, 0, progress=lambda done, total: told.append((done, total)))
    list(loader.epoch(0))
    assert told == [(256, 700), (512, 700), (700, 700)]
    list(BatchLoader(split, SIZE, 50, 1, progress=lambda done, total: told.append((done, total))).epoch(0))
    assert len(told) == 3, "a second loader of the same split shares the decoded images"


def test_an_epoch_left_early_leaves_no_threads():
    import threading

    loader = BatchLoader(numbered(60), SIZE, 4, 0, memory=0)
    batches = loader.epoch(0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_memory_stays_bounded_when_the_step_is_slow(monkeypatch):
    import time

    split, read = numbered(400), []
    monkeypatch.setattr(split, "decode", lambda i, shortest: read.append(i) or split.images[i])
    batches = BatchLoader(split, SIZE, 10, 0, memory=0).epoch(0)
    next(batches)
    time.sleep(0.05)
    assert len(read) <= 60
    batches.close()


@pytest.mark.parametrize(
    "wrong",
    [dict(size=0), dict(batch_size=0), dict(crop=13), dict(crop=0), dict(draws=corners), dict(rank=2, world_size=2)],
)
def test_a_senseless_loader_is_refused(wrong):
    with pytest.raises(DataError):
        BatchLoader(numbered(3), **{"size": SIZE, "batch_size": 2, "seed": 0, **wrong})


@pytest.mark.parametrize("cuts", [np.full((2, 2), 5), np.full((2, 2), -1), np.zeros((3, 2)), np.zeros((2, 1))])
def test_offsets_outside_the_image_are_refused(cuts):
    with pytest.raises(DataError, match="offsets"):
        next(BatchLoader(numbered(2), SIZE, 2, 0, crop=8, draws=lambda epoch, positions, places: drawn(cuts)).epoch(0))


def test_memory_is_used_again_only_after_it_was_given_back():
    loader = BatchLoader(numbered(400), SIZE, 10, seed=0, memory=0)
    held, places = [], set()
    for batch in loader.epoch(0):
        places.add(batch.images.data_ptr())
        if batch.step % 7:
            batch.release()
        else:
            held.append((batch, batch.images.clone(), batch.images.permute(0, 3, 1, 2)[2:]))
    assert len(places) < 25, "40 batches in fresh memory each"
    for batch, copy, view in held:
        assert torch.equal(batch.images, copy) and torch.equal(view, copy.permute(0, 3, 1, 2)[2:])


def test_what_is_given_back_stays_as_it_is_until_the_next_batch_is_asked_for():
    import time

    batches = BatchLoader(numbered(400), SIZE, 10, seed=0, memory=0).epoch(0)
    for batch in batches:
        copy = batch.images.clone()
        batch.release()
        if batch.step % 10 == 0:
            time.sleep(0.01)  # the threads have time to do harm
        assert torch.equal(batch.images, copy)


def test_memory_given_back_twice_goes_to_one_batch():
    loader = BatchLoader(numbered(60), SIZE, 10, seed=0, memory=0)
    first = next(loader.epoch(0))
    for _ in range(3):
        first.release()
    batches = list(loader.epoch(1))
    assert len({batch.images.data_ptr() for batch in batches}) == 6


def test_epochs_of_one_loader_under_way_at_once_do_not_disturb_each_other():
    loader = BatchLoader(numbered(90), SIZE, 10, seed=0, memory=0)
    expected = {epoch: as_lists(loader.epoch(epoch)) for epoch in (0, 1)}
    seen = {0: [], 1: []}
    for pair in zip(loader.epoch(0), loader.epoch(1), strict=True):
        for epoch, batch in enumerate(pair):
            seen[epoch] += as_lists([batch])
        for batch in pair:
            batch.release()
    assert seen == expected


def per_image(batches):
    """What each image of an epoch got: position to pixels, label and draw."""
    images = {}
    for batch in batches:
        for j, i in enumerate(batch.positions.tolist()):
            draw = [array[j].tolist() for array in vars(batch.draw).values()]
            images[i] = (batch.images[j].numpy().tobytes(), int(batch.labels[j]), draw)
    return images


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_an_image_gets_the_same_in_any_batch_process_and_company(memory):
    whole = numbered(43)
    options = {"seed": 4, "crop": 8, "draws": corners, "memory": memory}
    expected = per_image(BatchLoader(whole, SIZE, 10, **options).epoch(2))
    assert len(expected) == 43
    for batch_size in (1, 7, 43, 100):
        assert per_image(BatchLoader(whole, SIZE, batch_size, **options).epoch(2)) == expected
    broken = Broken("train", whole.images, whole.labels, [str(i) for i in range(43)])
    rest = per_image(BatchLoader(broken, SIZE, 10, **options).epoch(2))
    assert rest == {i: got for i, got in expected.items() if i % 5}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_processes_share_each_batch_in_order(world_size, shuffle):
    options = {"seed": 4, "crop": 8, "draws": corners, "shuffle": shuffle}
    alone = list(BatchLoader(numbered(33), SIZE, 10, **options).epoch(2))
    loaders = [BatchLoader(numbered(33), SIZE, 10, rank=r, world_size=world_size, **options) for r in range(world_size)]
    shares = [list(loader.epoch(2)) for loader in loaders]
    assert {loader.steps for loader in loaders} == {4}
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert [part.step for part in parts] == [step] * world_size
        assert np.concatenate([part.positions for part in parts]).tolist() == batch.positions.tolist()
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert np.concatenate([part.draw.offsets for part in parts]).tolist() == batch.draw.offsets.tolist()
    assert [len(share[3].labels) for share in shares] == [
        3 * (r + 1) // world_size - 3 * r // world_size for r in range(world_size)
    ]


def test_with_no_memory_to_spare_nothing_stays_decoded():
    from alexnet.data import loader as module

    split = numbered(30)
    list(BatchLoader(split, SIZE, 10, 0, memory=0).epoch(0))
    assert split not in module._resident
    list(BatchLoader(split, SIZE, 10, 0, memory=1 << 20).epoch(0))
    assert split in module._resident
