"""`alexnet doctor`: it says what is there, what is not and how to get it, in prose and as JSON."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path

import pytest

from alexnet import cli
from alexnet.commands import doctor
from alexnet.environment import instruction_sets


def test_the_diagnosis_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {field.name for field in doctor.dataclasses.fields(doctor.Diagnosis)}
    assert found["versions"]["torch"] and found["threads"] >= 1
    assert (tuple(found["instruction_sets"]), found["instruction_class"]) == instruction_sets()
    assert found["engine"]["in_use"] == (found["engine"]["why_not"] is None)
    assert all(value > 0 for value in found["probe"].values())


def test_without_the_probe_nothing_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "measure", lambda: pytest.fail("measured"))
    assert cli.main(["doctor", "--no-probe"]) == 0
    out = capsys.readouterr().out
    assert "speed" not in out
    for name in ("versions", "processor", "instructions", "threads", "GPU", "engine", "cache", "missing"):
        assert f"\n{name}" in "\n" + out


def test_the_probe_ends_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += 0.3

    assert doctor._least_seconds(work, 1.0) == pytest.approx(0.3)
    assert clock[0] == pytest.approx(1.2)  # the first that ends past the budget is the last


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["torch>=2", 'onnx>=1.17; extra == "export"', "openvino >= 2025 ; extra == 'openvino'"]
    requirements.append('pytest>=8; extra == "dev"')
    monkeypatch.setattr("importlib.metadata.requires", lambda _: requirements)
    monkeypatch.setattr("alexnet.environment.version", lambda name: None if name in ("onnx", "pytest") else "1")
    assert doctor.missing() == [doctor.Missing("onnx", doctor.EXTRAS["export"], "pip install 'alexnet[export]'")]


def test_every_extra_has_its_purpose() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - {"dev"} <= set(doctor.EXTRAS)


def test_an_engine_that_is_not_there_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        warnings.warn("alexnet runs without its kernels: no C++ compiler", RuntimeWarning, stacklevel=2)

    monkeypatch.setattr("alexnet.engine.library.library", none)
    monkeypatch.setattr("alexnet.engine.convolution.supported_dtypes", frozenset)
    monkeypatch.delenv("ALEXNET_ENGINE", raising=False)
    assert "no C++ compiler" in str(doctor.engine().why_not)
    monkeypatch.setenv("ALEXNET_ENGINE", "none")
    assert doctor.engine() == doctor.Engine(False, "switched off by ALEXNET_ENGINE=none", ())


def test_a_folders_size_is_the_sum_of_its_files(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(7))
    (tmp_path / "c").write_bytes(bytes(5))
    assert (doctor._size(tmp_path), doctor._size(tmp_path / "absent")) == (12, 0)
