"""Checkpoints outlive a kill at any moment: the old one or the new one is there, whole.

A kill is played by raising, in place of the k-th file operation, an exception that nothing catches, for every k. What
the interrupted process would have cleaned up is then still lying about, as after a real kill.
"""

import errno
import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet import presets
from alexnet.checkpoint import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    load_weights,
    read_checkpoint,
    read_record,
    recover_checkpoint,
    save_checkpoint,
)
from alexnet.errors import CheckpointError
from alexnet.model.zoo import create_model

OPERATIONS = ("replace", "rename", "unlink", "remove", "fsync")


class KilledError(BaseException):
    """What a kill is to the code: nothing after it runs."""


class Operations:
    """Counts file operations and, at the one asked for, kills or fails."""

    def __init__(self, at: int | None, failure: BaseException, halve: bool) -> None:
        self.at, self.failure, self.halve = at, failure, halve
        self.count = 0

    def wrap(self, operation: str) -> Callable[..., Any]:
        real = getattr(os, operation)

        def counted(*args: Any, **rest: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                if operation == "fsync" and self.halve and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                raise self.failure
            return real(*args, **rest)

        return counted


@contextmanager
def interrupted(at: int | None = None, halve: bool = False) -> Iterator[Operations]:
    """Within it, the `at`-th replace, rename, unlink or fsync kills; a file being written may then be half there."""
    operations = Operations(at, KilledError(), halve)
    with pytest.MonkeyPatch.context() as patch:
        for operation in OPERATIONS:
            patch.setattr(os, operation, operations.wrap(operation))
        yield operations


def weights_of(number: int) -> dict[str, Tensor]:
    return {"a.weight": torch.full((5, 3), float(number)), "a.bias": torch.full((5,), float(number))}


def save(folder: Path, number: int, name: str = "last") -> None:
    checkpoint = Checkpoint(weights_of(number), {"a.bias": torch.full((5,), float(number))}, {"number": number})
    save_checkpoint(folder / f"{name}.safetensors", checkpoint)


def number_in(checkpoint: Checkpoint) -> int:
    """Which save this is; fails where weights, velocities and state are of two."""
    tensors = [*checkpoint.weights.values(), *checkpoint.velocities.values()]
    numbers = {float(value) for tensor in tensors for value in tensor.flatten()}
    assert numbers == {float(checkpoint.state["number"])}, "weights and state are of two saves"
    assert set(checkpoint.weights) == {"a.weight", "a.bias"} and set(checkpoint.velocities) == {"a.bias"}
    return checkpoint.state["number"]


def operations_of(folder: Path, action: Callable[[], object]) -> int:
    """How many file operations an action does, tried on the side."""
    aside = folder.with_name(folder.name + " aside")
    shutil.copytree(folder, aside)
    with interrupted() as operations:
        action()
    shutil.rmtree(folder)
    aside.rename(folder)
    return operations.count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_what_is_saved_is_loaded_to_the_bit(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(4, 3, 5, 5, generator=generator).contiguous(memory_format=torch.channels_last)
    weights = {
        "conv.weight": kernels,
        "bias": torch.randn(4, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "double": torch.randn(2, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7),
    }
    state = {
        "train": {"epoch": 3, "step": 17, "loss": 0.1},
        "none": None,
        "list": [1, 2.5, "x"],
    }
    velocities = {"bias": torch.randn(4, generator=generator)}
    save_checkpoint(folder / "last.safetensors", Checkpoint(weights, velocities, state))
    checkpoint = load_checkpoint(folder, "last")
    assert checkpoint.weights.keys() == weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(checkpoint.weights[key], value.numpy(), key, strict=True)
    assert checkpoint.velocities.keys() == {"bias"}
    np.testing.assert_array_equal(checkpoint.velocities["bias"], velocities["bias"].numpy(), strict=True)
    assert checkpoint.state == state
    assert (checkpoint.origin, checkpoint.damage) == (str(folder / "last.safetensors"), "")


def test_the_file_is_read_by_safetensors_with_its_state_in_the_header(folder: Path) -> None:
    save(folder, 1)
    assert [path.name for path in folder.iterdir()] == ["last.safetensors"]
    with safe_open(folder / "last.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"a.weight", "a.bias", "velocity/a.bias"}
        assert json.loads(file.metadata()["alexnet"]) == {"number": 1}


def test_saving_again_keeps_the_one_before_and_nothing_else(folder: Path) -> None:
    for number in range(1, 4):
        save(folder, number)
        save(folder, number, "best")
    assert number_in(load_checkpoint(folder, "last")) == 3
    assert number_in(load_checkpoint(folder, "best")) == 3
    assert number_in(read_checkpoint(folder / "previous.safetensors")) == 2
    names = ["best.safetensors", "last.safetensors", "previous.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_state_that_is_not_json_leaves_the_old_checkpoint(folder: Path) -> None:
    save(folder, 1)
    with pytest.raises(ValueError):
        save_checkpoint(folder / "last.safetensors", Checkpoint({}, {}, {"loss": float("nan")}))
    assert number_in(load_checkpoint(folder, "last")) == 1


def test_checkpoints_of_two_names_do_not_touch_each_other(folder: Path) -> None:
    save(folder, 1, "last")
    save(folder, 2, "best")
    save(folder, 3, "last")
    assert number_in(load_checkpoint(folder, "best")) == 2
    assert number_in(load_checkpoint(folder, "last")) == 3


def test_saving_does_not_change_the_model_or_need_its_gradients(folder: Path) -> None:
    model = create_model("digits")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_checkpoint(folder / "last.safetensors", Checkpoint(dict(model.named_parameters())))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("halve", [False, True])
def test_a_kill_at_any_operation_of_a_save_leaves_the_old_or_the_new(tmp_path: Path, halve: bool) -> None:
    folder = tmp_path / "count"
    save(folder, 1)
    operations = operations_of(folder, lambda: save(folder, 2))
    assert operations >= 4
    seen = []
    for at in range(1, operations + 1):
        folder = tmp_path / f"killed at {at}"
        save(folder, 1)
        with interrupted(at, halve=halve), pytest.raises(KilledError):
            save(folder, 2)
        assert has_checkpoint(folder, "last")
        seen.append(number_in(load_checkpoint(folder, "last")))
        assert number_in(recover_checkpoint(folder, "last")) == seen[-1]
        assert number_in(load_checkpoint(folder, "last")) == seen[-1]
    assert seen == sorted(seen)  # once the new one counts, it goes on counting
    assert seen[0] == 1


@pytest.mark.parametrize("halve", [False, True])
def test_a_kill_at_any_operation_of_the_very_first_save_leaves_nothing_or_all(tmp_path: Path, halve: bool) -> None:
    operations = 0
    with interrupted() as counting:
        save(tmp_path / "count", 1)
        operations = counting.count
    for at in range(1, operations + 1):
        folder = tmp_path / f"killed at {at}"
        with interrupted(at, halve=halve), pytest.raises(KilledError):
            save(folder, 1)
        try:
            found = number_in(recover_checkpoint(folder, "last"))
        except CheckpointError:
            found = 0
        assert found in (0, 1)
        save(folder, 2)
        assert number_in(load_checkpoint(folder, "last")) == 2


def test_a_kill_at_any_operation_of_a_recovery_loses_nothing(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    save(probe, 1)
    saving = operations_of(probe, lambda: save(probe, 2))
    for at in range(1, saving + 1):
        folder = tmp_path / f"saving killed at {at}"
        save(folder, 1)
        with interrupted(at), pytest.raises(KilledError):
            save(folder, 2)
        expected = number_in(load_checkpoint(folder, "last"))
        recovering = operations_of(folder, lambda folder=folder: recover_checkpoint(folder, "last"))
        for then in range(1, recovering + 1):
            again = tmp_path / f"saving killed at {at}, recovery at {then}"
            shutil.copytree(folder, again)
            with interrupted(then), pytest.raises(KilledError):
                recover_checkpoint(again, "last")
            assert number_in(load_checkpoint(again, "last")) == expected
            assert number_in(recover_checkpoint(again, "last")) == expected


def every_two_kills(tmp_path: Path, between: Callable[[Path], object], name: str) -> Iterator[tuple[Path, int]]:
    """Folders after a kill in a save, `between`, and a kill in the next save, with what was there in between."""
    probe = tmp_path / "probe"
    save(probe, 1, name)
    most = operations_of(probe, lambda: save(probe, 2, name)) + 4  # a save that clears left-overs away does more
    for first in range(1, most):
        base = tmp_path / f"{first}"
        save(base, 1, name)
        with suppress(KilledError), interrupted(first):
            save(base, 2, name)
        expected = number_in(load_checkpoint(base, name))
        between(base)
        for second in range(1, most + 4):
            folder = tmp_path / f"{first} {second}"
            shutil.copytree(base, folder)
            with suppress(KilledError), interrupted(second):
                save(folder, 3, name)
            yield folder, expected
            shutil.rmtree(folder)


def test_two_interrupted_saves_with_a_recovery_between_lose_nothing(tmp_path: Path) -> None:
    for folder, expected in every_two_kills(tmp_path, lambda base: recover_checkpoint(base, "last"), "last"):
        assert number_in(load_checkpoint(folder, "last")) in (expected, 3), folder.name
        assert number_in(recover_checkpoint(folder, "last")) in (expected, 3), folder.name


@pytest.mark.parametrize("name", ["best", "last"])
def test_two_interrupted_saves_without_a_recovery_between_lose_nothing(name: str, tmp_path: Path) -> None:
    for folder, expected in every_two_kills(tmp_path, lambda base: None, name):
        assert number_in(load_checkpoint(folder, name)) in (expected, 3), folder.name


def test_an_interrupted_save_of_one_name_does_not_hurt_the_other(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    save(probe, 1, "best")
    for at in range(1, operations_of(probe, lambda: save(probe, 2, "best")) + 1):
        folder = tmp_path / f"{at}"
        save(folder, 1, "best")
        save(folder, 2, "last")
        with interrupted(at), pytest.raises(KilledError):
            save(folder, 3, "best")
        save(folder, 4, "last")
        assert number_in(load_checkpoint(folder, "last")) == 4
        assert number_in(load_checkpoint(folder, "best")) in (1, 3)


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(folder: Path) -> None:
    save(folder, 1)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.MonkeyPatch.context() as patch:
        operations = Operations(1, full, halve=True)
        patch.setattr(os, "fsync", operations.wrap("fsync"))
        with pytest.raises(OSError) as error:
            save(folder, 2)
    assert error.value.errno == errno.ENOSPC
    assert [path.name for path in folder.iterdir()] == ["last.safetensors"]
    assert number_in(load_checkpoint(folder, "last")) == 1
    save(folder, 3)
    assert number_in(load_checkpoint(folder, "last")) == 3


def test_a_folder_that_cannot_be_written_loses_nothing(folder: Path) -> None:
    save(folder, 1)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder.chmod(0o500)
    try:
        with pytest.raises(OSError):
            save(folder, 2)
        assert number_in(load_checkpoint(folder, "last")) == 1
    finally:
        folder.chmod(0o700)


def test_a_truncated_file_is_named_whatever_its_length(folder: Path) -> None:
    save(folder, 1)
    path = folder / "last.safetensors"
    content = path.read_bytes()
    for length in sorted({0, 1, 7, 8, 9, len(content) // 4, len(content) // 2, len(content) - 1}):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(folder, "last")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_byte_that_changed_anywhere_is_damage(folder: Path) -> None:
    save(folder, 1)
    save(folder, 2)
    path = folder / "last.safetensors"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            checkpoint = load_checkpoint(folder, "last")
        except CheckpointError:
            pytest.fail(f"byte {place}: the one before is not used")
        if not checkpoint.damage:  # only a name of the checksum itself may go unseen
            assert number_in(checkpoint) == 2 and b"crc32" not in path.read_bytes(), place


def test_a_state_nested_without_end_is_a_checkpoint_error(folder: Path) -> None:
    save_file({"a": torch.zeros(1)}, write(folder / "last.safetensors"), {"alexnet": "[" * 100_000})
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"not a checkpoint", pickle.dumps([1, 2], protocol=2), b"\xff" * 64],
    ids=["empty", "zeros", "text", "pickle", "a header too long"],
)
def test_a_file_of_something_else_is_a_checkpoint_error(folder: Path, content: bytes) -> None:
    save(folder, 1)
    (folder / "last.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


@pytest.mark.parametrize("state", ["[1, 2]", "3", "{", "null", ""])
def test_a_state_that_is_no_object_is_a_checkpoint_error(folder: Path, state: str) -> None:
    save_file({"a": torch.zeros(1)}, write(folder / "last.safetensors"), {"alexnet": state})
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


def write(path: Path) -> Path:
    """A path whose folder is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_any_safetensors_file_is_a_checkpoint_of_weights_alone(tmp_path: Path) -> None:
    save_file(weights_of(4), tmp_path / "a.safetensors", {"format": "pt"})
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.weights.keys() == {"a.weight", "a.bias"} and not checkpoint.velocities and not checkpoint.state
    with pytest.raises(CheckpointError, match=r"b\.safetensors does not exist"):
        read_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize("content", [b"", b"half", None], ids=["empty", "text", "missing"])
def test_a_damaged_last_gives_way_to_the_one_before_and_says_so(folder: Path, content: bytes | None) -> None:
    save(folder, 1)
    save(folder, 2)
    last, previous = folder / "last.safetensors", folder / "previous.safetensors"
    last.unlink() if content is None else last.write_bytes(content)
    for _ in range(2):  # reading changes nothing
        checkpoint = load_checkpoint(folder, "last")
        assert number_in(checkpoint) == 1 and checkpoint.origin == str(previous)
        assert str(last) in checkpoint.damage and str(previous) in checkpoint.damage and "\n" not in checkpoint.damage
    assert number_in(recover_checkpoint(folder, "last")) == 1
    assert number_in(load_checkpoint(folder, "last")) == 1 and not previous.exists()
    assert not load_checkpoint(folder, "last").damage


def test_where_both_are_damaged_the_last_is_named(folder: Path) -> None:
    for name in ("last", "previous"):
        write(folder / f"{name}.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged .*previous\.safetensors, is damaged too"):
        recover_checkpoint(folder, "last")
    assert (folder / "last.safetensors").read_bytes() == b"half"


def test_a_damaged_best_has_nothing_to_give_way_to(folder: Path) -> None:
    save(folder, 1)
    save(folder, 2)
    (folder / "best.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"best\.safetensors is damaged"):
        load_checkpoint(folder, "best")


@dataclass
class Part:
    count: int
    share: float | None


@dataclass
class Whole:
    part: Part
    names: tuple[str, ...]
    sums: dict[str, float]
    extra: dict[str, Any]
    over: bool


GOOD = {
    "part": {"count": 3, "share": None},
    "names": ["a"],
    "sums": {"a": 1},
    "extra": {"any": [None]},
    "over": False,
}


def test_a_record_is_read_back_from_json() -> None:
    whole = Whole(Part(3, 0.5), ("a", "b"), {"a": 1.0}, {"any": [None]}, True)
    assert read_record(Whole, json.loads(json.dumps(asdict(whole))), "x") == whole
    assert read_record(Whole, GOOD, "x") == Whole(Part(3, None), ("a",), {"a": 1.0}, {"any": [None]}, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": 3}, r"x\.part 3 should be an object"),
        ({"part": {"count": 1}}, r"x\.part\.share is missing"),
        ({"part": {"count": -1, "share": 0}}, r"x\.part\.count -1 should be a whole number from 0 to 9,007"),
        ({"part": {"count": 1.0, "share": 0}}, r"x\.part\.count 1\.0"),
        ({"part": {"count": True, "share": 0}}, r"x\.part\.count true"),
        ({"part": {"count": 1, "share": float("inf")}}, r"x\.part\.share inf should be a number within ±1e\+100"),
        ({"part": {"count": 1, "share": "1"}}, r"x\.part\.share '1'"),
        ({"names": "a"}, r"x\.names 'a' should be a list"),
        ({"names": [1]}, r"x\.names\[0\] 1 should be a text"),
        ({"sums": []}, r"x\.sums \[\] should be an object"),
        ({"sums": {"a": None}}, r"x\.sums\.a null"),
        ({"over": 0}, r"x\.over 0 should be true or false"),
        ({"more": 1}, r"x\.more is not known"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_by_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_record(Whole, {**GOOD, **change}, "x")


def test_a_folder_without_a_checkpoint_says_so(folder: Path) -> None:
    assert not has_checkpoint(folder, "last")
    with pytest.raises(CheckpointError, match="not saved yet"):
        load_checkpoint(folder, "last")
    save(folder, 1)
    with pytest.raises(CheckpointError, match="best"):
        load_checkpoint(folder, "best")


def test_weights_are_loaded_into_the_model_they_were_saved_from(folder: Path) -> None:
    first, second = create_model("digits", seed=1), create_model("digits", seed=2)
    save_checkpoint(folder / "last.safetensors", Checkpoint(first.state_dict()))
    load_weights(second, load_checkpoint(folder, "last").weights, "last.safetensors")
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in second.state_dict().items())


@pytest.mark.parametrize(("other", "classes"), [("cifar-26", 10), ("digits", 12), ("paper-like", 10)])
def test_weights_of_another_network_are_refused_naming_the_file_and_a_tensor(other: str, classes: int) -> None:
    model = create_model("digits")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if other == "paper-like":
        weights = {key: value for key, value in model.state_dict().items() if key != "conv2.bias"}
    else:
        weights = create_model(other, num_classes=classes).state_dict()
    with pytest.raises(CheckpointError) as error:
        load_weights(model, weights, "runs/a/checkpoints/last.safetensors")
    message = str(error.value)
    assert "runs/a/checkpoints/last.safetensors" in message
    assert "another network" in message
    assert any(key in message for key in {**weights, **before})
    assert "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    model = create_model("digits")
    weights = {**model.state_dict(), "fc5.bias": torch.zeros(12)}
    with pytest.raises(CheckpointError, match=r"fc5\.bias.*\(12,\).*\(10,\)"):
        load_weights(model, weights, "last.safetensors")


def tensor(first: int, last: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"a": {"dtype": "F32"}}', "should have dtype, shape and data_offsets"),
        (json.dumps({"a": tensor(0, 8)}), "is not as long as its place"),
        (json.dumps({"a": tensor(0, 2**40, (2**38,))}), "its tensors are .* bytes, and it holds 4"),
        (json.dumps({"a": tensor(4, 8)}), "does not follow what is before it"),
        (json.dumps({"a": tensor(0, 4), "b": tensor(0, 4)}), "does not follow what is before it"),
        (json.dumps({"a": tensor(0, 4, dtype="F99")}), "the dtype 'F99', which is not known"),
        (json.dumps({"a": tensor(0, 4, (-1, -1))}), "whole numbers from 0 on"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        (json.dumps({"a": tensor(0, 4), "__metadata__": {"alexnet": 3}}), "should be texts by name"),
        ("[]", "an object in braces"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_header_that_says_what_is_not_so_is_refused(header: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(CheckpointError, match=rf"a\.safetensors is damaged .*{message}"):
        read_checkpoint(path)


def test_a_header_beyond_the_file_or_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length, message in ((2**63, "ends within its header"), (100_000_000, "header of 100,000,000 bytes is longer")):
        path.write_bytes(length.to_bytes(8, "little"))
        os.truncate(path, 200_000_000)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(path)


def test_a_file_that_does_not_fit_is_told_by_its_header_alone(tmp_path: Path) -> None:
    network, path = presets.preset("digits").network, tmp_path / "last.safetensors"
    save_file({name: value.contiguous() for name, value in create_model("cifar-26").state_dict().items()}, path)
    with pytest.raises(CheckpointError, match="is of another network"):
        load_checkpoint(tmp_path, "last", network)
