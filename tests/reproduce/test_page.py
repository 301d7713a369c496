"""The ledger's page: made from the records alone, whole in one file; the committed one from the committed records."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from alexnet.reproduce import page
from alexnet.reproduce.claims import CLAIMS
from alexnet.reproduce.ledger import outcomes
from alexnet.reproduce.records import PACKAGE, Records, read_records
from alexnet.reproduce.tables import table_1, table_2
from tests.reproduce.made import predict, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two seeds of some arms at cifar10, whose errors are known."""
    for seed in (0, 1):
        errors = {"top1_error": 20.0 + seed, "top1_error_views": 15.0, "generalization_gap": 1.0, "images": 200}
        record("paper", seed, "cifar10", **errors).save(tmp_path)
        record("no-dropout", seed, "cifar10", **{**errors, "generalization_gap": 9.5 + seed / 100}).save(tmp_path)
        record("no-colour", seed, "cifar10", **{**errors, "top1_error": 23.25 + seed}).save(tmp_path)
        for kind in ("views", "val"):
            predict(tmp_path, "paper", seed, kind, np.arange(200) % 7 == seed, "cifar10")
    return read_records([tmp_path])


def test_the_committed_pages_are_made_from_the_committed_records() -> None:
    for name, text in page.markdown(read_records([PACKAGE])).items():
        assert (ROOT / "docs" / name).read_text() == text, f"{name} is old: python -m experiments.table"


def test_every_claim_is_on_the_page_with_its_figures(records: Records) -> None:
    text = page.html(records)
    for claim in CLAIMS:
        assert f'id="claim-{claim.number}"' in text
    assert "+3.25 (" in text and "no-colour 23.75" in text and "+8.5" in text
    found = [one for one in outcomes(records) if one.interval is not None]
    for one in found:
        assert page.difference(one) in text


def test_the_page_is_whole_in_one_file(records: Records) -> None:
    text = page.html(records)
    assert not re.search(r"(?:src|href)=\"(?!#)[^\"]*\"", text) and "<script" not in text
    assert not re.search(r"url\((?!#)", text)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 5  # claims 6, 7, 10 and 11, and the curves of 7
    for drawing in drawings:
        assert "23.75" in drawing or "aria-label" in drawing


def test_the_page_in_markdown_shows_the_plots_beside_it(records: Records) -> None:
    files = page.markdown(records, "ledger")
    text = files.pop("ledger.md")
    assert set(re.findall(r"\]\((ledger/[\w-]+\.svg)\)", text)) == set(files)
    assert "ledger/7-curves.svg" in files and "ledger/6.svg" in files
    for drawing in files.values():
        ElementTree.fromstring(drawing)
        assert "prefers-color-scheme: dark" in drawing
    assert page.markdown(records, "ledger") == {"ledger.md": text, **files}  # equal records, equal pages


def test_the_papers_tables_are_means_over_seeds_and_averages_of_networks(records: Records, tmp_path: Path) -> None:
    first, second = table_1(records, "cifar10"), table_2(records, "cifar10")
    assert [line.n for line in first] == [0, 0, 0] and first[0].top1 is None
    assert (second[0].top1, second[0].n) == (15.0, 2)
    assert second[1].top1 is None  # five are needed
    for seed in range(5):
        record("paper", seed, "cifar10", top1_error_views=15.0).save(tmp_path)
        for kind in ("views", "val"):
            predict(tmp_path, "paper", seed, kind, np.arange(200) % 7 == seed, "cifar10")
    line = table_2(read_records([tmp_path]), "cifar10")[1]
    assert (line.top1, line.n) == (0.0, 5) and line.searched is not None
    assert "5 CNNs" in page.small_tables(read_records([tmp_path]))


def test_a_table_in_markdown_has_a_row_for_every_claim(records: Records) -> None:
    lines = page.headline(records).splitlines()
    assert len(lines) == 2 + len(CLAIMS) and lines[2 + 5].endswith("| cifar10 | 2 | **confirmed** |")
