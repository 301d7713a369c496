"""Hardware and versions: instruction sets by the system's flags, and what a record needs."""

from __future__ import annotations

import json

import pytest

from alexnet.environment import environment, instruction_sets


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("sse2 sse4_1 avx avx2 fma avx512f avx512_bf16 amx_tile amx_bf16", "amx-bf16"),
        ("sse2 avx avx2 fma avx512f avx512bw avx512_bf16", "avx512-bf16"),
        ("sse2 avx avx2 fma avx512f avx512bw", "avx512"),
        ("sse2 avx avx2 fma", "avx2"),
        ("asimd bf16 sve", "sve-bf16"),
        ("asimd bf16", "neon-bf16"),
        ("fp asimd", "neon"),
    ],
)
def test_a_processor_is_of_the_widest_class_whose_instructions_it_has(flags: str, kind: str) -> None:
    names, found = instruction_sets(set(flags.split()))
    assert found == kind
    assert set(names) <= set(flags.split()) and list(names) == sorted(names)


def test_a_processor_without_vector_flags_is_named_by_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert instruction_sets(set()) == ((), "x86-64")


def test_the_record_names_the_instructions() -> None:
    found = json.loads(json.dumps(environment(["alexnet", "train"])))
    names, kind = instruction_sets()
    assert (found["hardware"]["instruction_sets"], found["hardware"]["instruction_class"]) == (list(names), kind)
    assert found["command"] == ["alexnet", "train"] and found["versions"]["torch"]
