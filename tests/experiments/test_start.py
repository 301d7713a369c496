"""What lets the network start: the small one is the paper's, arms differ in one thing, the page has the runs."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from itertools import product
from pathlib import Path

import pytest

from alexnet import presets
from alexnet.architecture import Conv, Full, infer_shapes
from alexnet.config import Config, replace
from experiments import start, table
from experiments.start import ARMS, BIASES, CODE, DIFFERENCES, LITERAL, SIGMA, SINGLE, TRIED, WHOLE, Arm, StartRun


@pytest.mark.parametrize("name", [LITERAL, CODE])
def test_the_small_network_has_the_presets_layers_and_passes_signals_on_as_they_do(name: str) -> None:
    whole, small = presets.preset(name), start.small(name)
    assert [layer.name for layer in small.network.layers] == [layer.name for layer in whole.network.layers]
    assert small.network.columns == 2 and small.optimizer == whole.optimizer and small.augment == whole.augment
    before, after = start.fan_ins(whole.network), start.fan_ins(small.network)
    for old, new in zip(whole.network.layers, small.network.layers, strict=True):
        if isinstance(old, Conv | Full) and isinstance(new, Conv | Full):
            assert new.bias == old.bias and old.std is not None and new.std is not None
            gains = [layer.std * math.sqrt(inputs[layer.name]) for layer, inputs in ((old, before), (new, after))]  # type: ignore[operator]
            assert new.std == old.std if old.name == "conv1" else gains[0] == pytest.approx(gains[1], rel=0.01)
        else:
            assert old == new
    assert sum(entry.connections for entry in infer_shapes(small.network)) < 10_000_000


def comparable(config: Config) -> Config:
    """Without what cannot matter in the first epoch, and conv5's ReLU behind its pooling as in the source."""
    layers = [layer for layer in config.network.layers if layer.name != "relu5"]
    network = dataclasses.replace(config.network, layers=tuple(layers), name="", about="")
    augment = dataclasses.replace(config.augment, colour_until=0)
    blank = presets.preset(LITERAL)
    return dataclasses.replace(
        config, preset="", network=network, augment=augment, schedule=blank.schedule, train=blank.train
    )


@pytest.mark.parametrize(("base", "other"), [(LITERAL, CODE), (CODE, LITERAL)])
def test_all_differences_together_make_one_preset_of_the_other(base: str, other: str) -> None:
    config, target = start.small(base), start.small(other)
    for take in DIFFERENCES.values():
        changed = take(config, target)
        assert changed != config
        assert take(changed, start.small(base)) == config  # and back
        config = changed
    assert comparable(config) == comparable(target)
    assert comparable(start.small(base)) != comparable(target)


def test_single_layers_together_are_the_difference_in_sigma() -> None:
    config, target = start.small(LITERAL), start.small(CODE)
    for take in SINGLE.values():
        config = take(config, target)
    assert config == DIFFERENCES[SIGMA](start.small(LITERAL), target)


def test_every_arm_is_another_network_or_recipe_in_a_folder_of_its_own() -> None:
    arms = [*ARMS, *WHOLE]
    assert len({arm.folder for arm in arms}) == len({arm.name for arm in arms}) == len(arms)
    configs = [arm.config() for arm in arms]
    assert all(config not in configs[:place] for place, config in enumerate(configs))
    whole = Arm(LITERAL, SIGMA, whole=True).config().network
    stds = {layer.name: layer.std for layer in whole.layers if isinstance(layer, Conv)}
    assert stds == {"conv1": 0.01, "conv2": 0.01, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03}
    assert {arm.change for arm in ARMS} >= {"", *DIFFERENCES, *SINGLE, *TRIED}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([6, 5.3, 5.3, 5.3], None),
        ([6, 5.3, 5.2, 5.1], 60),
        ([6, 5.2, 5.3, 5.1], 80),
        ([5.2, 5.2, 5.2, 5.3], None),
        ([5, 5, 5, 5], 20),
        ([], None),
    ],
)
def test_a_run_has_started_where_its_loss_stays_below_that_of_guessing(
    losses: list[float], expected: int | None
) -> None:
    assert start.started([(20 * (i + 1), loss) for i, loss in enumerate(losses)]) == expected


def test_an_arm_is_trained_looked_at_and_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "ARMS", (Arm(LITERAL, steps=20), Arm(LITERAL, SIGMA, steps=20)))
    monkeypatch.setattr(start, "LONGER", Arm(LITERAL, steps=40))
    places = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path)]
    record = start.main(["--data", "digits", "--seeds", "3", "--more", "4", *places])
    assert start.load(tmp_path) == record
    assert [(run.arm, run.seed, run.started) for run in record.runs] == [
        (arm.name, seed, start.started(run.loss_curve))
        for (seed, arm), run in zip(product((3, 4), start.ARMS), record.runs, strict=True)
    ]
    assert [step for step, _ in record.runs[0].loss_curve] == [20, 40] and 0 <= record.runs[0].silent <= 1
    shares = {(signal.arm, signal.layer): signal.differs / signal.level for signal in record.signals}
    literal, wide = (shares[arm.name, "fc7"] for arm in start.ARMS)
    assert literal < 0.02 and wide > 5 * literal  # what tells images apart is lost with small weights
    assert len(shares) == 16 and all(0 < share <= 1 for share in shares.values())
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = start.main(["--data", "digits", "--seeds", "3", "--more", "4", *places])
    assert again.runs == record.runs and {path: path.stat().st_mtime_ns for path in files} == files


def test_the_tables_have_a_row_per_arm(tmp_path: Path) -> None:
    assert set(table.start_tables(tmp_path).values()) == {table.NOT_YET}
    known = start.load()
    assert known is not None
    curve = tuple((step, 5.3 if step < 400 else 5.2) for step in range(20, 601, 20))
    runs = [StartRun(arm.name, seed, 600, 400 + 20 * seed, 0.25, 60.0, curve) for arm in ARMS for seed in (0, 1)]
    results = tuple(start.summary([run for run in runs if run.arm == arm.name], arm) for arm in ARMS)
    record = dataclasses.replace(known, runs=tuple(runs), results=results)
    (tmp_path / "start.json").write_text(json.dumps(record.to_json()))
    tables = table.start_tables(tmp_path)
    row = "| nothing | 2 of 2, at step 400–420 | 5.200 (5.200–5.200) | 25 % | 2 |"
    assert tables["towards the code"].splitlines()[2] == tables["towards the paper"].splitlines()[2] == row
    assert len(tables["tried"].splitlines()) == 2 + len(TRIED)
    assert len(tables["towards the code"].splitlines()) == 3 + len(DIFFERENCES) + len(SINGLE)
    assert tables["conditions"].startswith(f"{len(runs)} runs, {len(runs)} minutes of training in all; ")


def test_the_record_has_three_seeds_of_every_difference_and_its_results_are_those_of_its_runs() -> None:
    record = start.load()
    assert record is not None
    for arm in ARMS:
        runs = record.of(arm)
        assert len({run.seed for run in runs}) == len(runs) >= (3 if arm.change in ("", BIASES, *DIFFERENCES) else 1)
        lengths = [start.LONG if (arm, run.seed) == (ARMS[0], 0) else arm.steps for run in runs]
        assert [run.loss_curve[-1][0] for run in runs] == [run.steps for run in runs] == lengths
        assert all(run.started == start.started(run.loss_curve) for run in runs)
        assert record.named(arm.name) == start.summary(runs, arm)


def test_the_commands_of_the_page_are_the_arms_that_start() -> None:
    page = (Path(start.__file__).parents[1] / "docs" / "start.md").read_text()
    configs = []
    for line in page.splitlines():
        if line.startswith("alexnet train "):
            words = shlex.split(line)[2:]
            options = dict(zip(words[::2], words[1::2], strict=True))
            assert options.pop("--preset") == LITERAL and options.pop("--data")
            changes = {name.removeprefix("--"): value for name, value in options.items()}
            configs.append(replace(presets.preset(LITERAL, classes=200), changes))
    assert configs == [Arm(LITERAL, change, whole=True).config() for change in (SIGMA, BIASES)]
