"""Checkpoints outlive a kill at any moment: the old pair or the new one is there, whole, and never a mix.

A kill is played by raising, in place of the k-th file operation, an exception that nothing catches, for every k. What
the interrupted process would have cleaned up is then still lying about, as after a real kill.
"""

import errno
import os
import pickle
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from alexnet.checkpoint import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    load_weights,
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
    save_checkpoint(folder, name, weights_of(number), {"number": number}, f"{name} {number}")


def number_in(checkpoint: Checkpoint) -> int:
    """Which save this is; fails where weights and state are of two."""
    numbers = {float(value) for tensor in checkpoint.weights.values() for value in tensor.flatten()}
    assert numbers == {float(checkpoint.state["number"])}, "weights and state are of two saves"
    assert set(checkpoint.weights) == {"a.weight", "a.bias"}
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
        "half": torch.randn(3, generator=generator).bfloat16(),
        "double": torch.randn(2, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7),
    }
    state = {
        "position": {"epoch": 3, "step": 17, "loss": 0.1},
        "best": float("inf"),
        "none": None,
        "list": [1, 2.5, "x"],
        "velocity": {"bias": torch.randn(4, generator=generator)},
    }
    save_checkpoint(folder, "last", weights, state, "t")
    checkpoint = load_checkpoint(folder, "last")
    assert checkpoint.weights.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(checkpoint.weights[key], value), key
        assert checkpoint.weights[key].dtype == value.dtype, key
    assert torch.equal(checkpoint.state["velocity"]["bias"], state["velocity"]["bias"])  # type: ignore[index]
    for key in ("position", "best", "none", "list"):
        assert checkpoint.state[key] == state[key], key


def test_the_files_are_safetensors_and_a_state_loadable_as_weights_only(folder: Path) -> None:
    save(folder, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["last.safetensors", "last.state.pt"]
    with safe_open(folder / "last.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"a.weight", "a.bias"}
    assert torch.load(folder / "last.state.pt", weights_only=True)["number"] == 1


def test_saving_again_replaces_the_pair_and_leaves_nothing_else(folder: Path) -> None:
    for number in range(1, 4):
        save(folder, number)
    assert number_in(load_checkpoint(folder, "last")) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["last.safetensors", "last.state.pt"]


def test_checkpoints_of_two_names_do_not_touch_each_other(folder: Path) -> None:
    save(folder, 1, "last")
    save(folder, 2, "best")
    save(folder, 3, "last")
    assert number_in(load_checkpoint(folder, "best")) == 2
    assert number_in(load_checkpoint(folder, "last")) == 3


def test_saving_does_not_change_the_model_or_need_its_gradients(folder: Path) -> None:
    model = create_model("digits")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_checkpoint(folder, "last", dict(model.named_parameters()), {}, "t")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("halve", [False, True])
def test_a_kill_at_any_operation_of_a_save_leaves_the_old_pair_or_the_new(tmp_path: Path, halve: bool) -> None:
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
    assert seen == sorted(seen)  # once the new pair counts, it goes on counting
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


def test_two_interrupted_saves_without_a_recovery_between_lose_nothing(tmp_path: Path) -> None:
    for folder, expected in every_two_kills(tmp_path, lambda base: None, "best"):
        assert number_in(load_checkpoint(folder, "best")) in (expected, 3), folder.name


def test_an_interrupted_save_of_one_name_does_not_hurt_the_other(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    save(probe, 1)
    for at in range(1, operations_of(probe, lambda: save(probe, 2)) + 1):
        folder = tmp_path / f"{at}"
        save(folder, 1, "best")
        save(folder, 2, "last")
        with interrupted(at), pytest.raises(KilledError):
            save(folder, 3, "best")
        save(folder, 4, "last")
        assert number_in(load_checkpoint(folder, "last")) == 4
        assert number_in(load_checkpoint(folder, "best")) in (1, 3)


def test_after_a_recovery_only_the_pair_is_left(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    save(probe, 1)
    for at in range(1, operations_of(probe, lambda: save(probe, 2)) + 1):
        folder = tmp_path / f"{at}"
        save(folder, 1)
        with interrupted(at), pytest.raises(KilledError):
            save(folder, 2)
        recover_checkpoint(folder, "last")
        save(folder, 3)
        assert sorted(path.name for path in folder.iterdir()) == ["last.safetensors", "last.state.pt"]


def test_a_full_disk_at_any_write_leaves_the_old_pair_and_says_so(tmp_path: Path) -> None:
    for at in (1, 2):
        folder = tmp_path / f"full at {at}"
        save(folder, 1)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.MonkeyPatch.context() as patch:
            operations = Operations(at, full, halve=True)
            patch.setattr(os, "fsync", operations.wrap("fsync"))
            with pytest.raises(OSError) as error:
                save(folder, 2)
        assert error.value.errno == errno.ENOSPC
        assert number_in(load_checkpoint(folder, "last")) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["last.safetensors", "last.state.pt"]
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


@pytest.mark.parametrize("suffix", ["safetensors", "state.pt"])
def test_a_truncated_file_is_named_whatever_its_length(folder: Path, suffix: str) -> None:
    save(folder, 1)
    path = folder / f"last.{suffix}"
    content = path.read_bytes()
    for length in sorted({0, 1, 7, 8, 9, len(content) // 4, len(content) // 2, len(content) - 1}):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(folder, "last")
        assert "last" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["safetensors", "state.pt"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"not a checkpoint", pickle.dumps([1, 2], protocol=2)],
    ids=["empty", "zeros", "text", "pickle"],
)
def test_a_file_of_something_else_is_a_checkpoint_error(folder: Path, suffix: str, content: bytes) -> None:
    save(folder, 1)
    (folder / f"last.{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


def test_a_state_that_is_no_dictionary_is_a_checkpoint_error(folder: Path) -> None:
    save(folder, 1)
    torch.save([1, 2], folder / "last.state.pt")
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


def test_a_state_that_would_run_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made by the state"),)

    save(folder, 1)
    torch.save({"number": 1, "token": "last 1", "harm": Harmful()}, folder / "last.state.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(folder, "last")
    assert not (tmp_path / "made by the state").exists()


@pytest.mark.parametrize("missing", ["safetensors", "state.pt"])
def test_half_a_pair_is_no_checkpoint(folder: Path, missing: str) -> None:
    save(folder, 1)
    (folder / f"last.{missing}").unlink()
    with pytest.raises(CheckpointError, match="last"):
        load_checkpoint(folder, "last")


def test_weights_and_state_of_two_saves_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    save(folder, 1)
    save(tmp_path / "other", 2)
    shutil.copy(tmp_path / "other" / "last.safetensors", folder)
    with pytest.raises(CheckpointError, match="belong together"):
        load_checkpoint(folder, "last")


def test_a_folder_without_a_checkpoint_says_so(folder: Path) -> None:
    assert not has_checkpoint(folder, "last")
    with pytest.raises(CheckpointError, match="not saved yet"):
        load_checkpoint(folder, "last")
    save(folder, 1)
    with pytest.raises(CheckpointError, match="best"):
        load_checkpoint(folder, "best")


def test_weights_are_loaded_into_the_model_they_were_saved_from(folder: Path) -> None:
    first, second = create_model("digits", seed=1), create_model("digits", seed=2)
    save_checkpoint(folder, "last", first.state_dict(), {}, "t")
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
