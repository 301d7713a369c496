"""Collections by name, without a network: a stand-in for the library, and data sets that are not there."""

import http.server
import sys
import threading
import types

import numpy as np
import pytest

from alexnet.data.readers import hub
from alexnet.data.readers.open import open_source
from alexnet.errors import DataError


def test_the_hub_needs_its_library_and_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'alexnet\[hub\]'"):
        open_source("hf:owner/name")


class Rows:
    """What `datasets` gives for a split, as far as it is used."""

    def __init__(self, rows, features):
        self.rows, self.features = rows, features

    def __getitem__(self, key):
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def cast_column(self, name, kind):
        assert kind.decode is False
        return self


def stand_in(monkeypatch, splits, asked):
    module = types.ModuleType("datasets")

    class Image:
        def __init__(self, decode=True):
            self.decode = decode

    class ClassLabel:
        def __init__(self, names):
            self.names = names

    def load_dataset(name, configuration=None):
        asked.append((name, configuration))
        if splits is None:
            raise ConnectionError("no\nnetwork")
        features = {"image": Image(), "label": ClassLabel(["cat", "dog"])}
        return {key: Rows(rows, features) for key, rows in splits.items()}

    module.Image, module.ClassLabel, module.load_dataset = Image, ClassLabel, load_dataset
    module.config = types.SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    library = types.ModuleType("huggingface_hub")
    library.constants = types.SimpleNamespace(ENDPOINT="https://hub.example", HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setattr(hub, "_is_reachable", lambda address: True)
    return library


def test_a_hub_data_set_is_read_encoded(monkeypatch, tmp_path, photo, encoded):
    on_disk = tmp_path / "b.jpg"
    on_disk.write_bytes(encoded(photo(2)))
    train = [
        {"image": {"bytes": encoded(photo(1)), "path": "x/a.jpg"}, "label": 0},
        {"image": {"bytes": None, "path": str(on_disk)}, "label": 1},
    ]
    hidden = [{"image": {"bytes": b"", "path": None}, "label": -1}]
    asked = []
    stand_in(monkeypatch, {"train": train, "validation": train[1:], "test": hidden, "extra": train}, asked)
    source = open_source("hf:owner/name@small")
    assert asked == [("owner/name", "small")] and source.classes == ("cat", "dog")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 2, "val": 1}
    split = source.splits["train"]
    assert [split.read_bytes(i) for i in (0, 1)] == [encoded(photo(1)), encoded(photo(2))]
    assert [split.image_name(i) for i in (0, 1)] == ["a.jpg", "b.jpg"]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    stand_in(monkeypatch, None, [])
    with pytest.raises(DataError) as caught:
        open_source("hf:owner/name")
    assert "no network" in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_given_up_at_once(monkeypatch):
    library = stand_in(monkeypatch, None, [])
    monkeypatch.setattr(hub, "_is_reachable", lambda address: False)
    with pytest.raises(DataError, match="cannot be reached"):
        open_source("hf:owner/name")
    assert library.constants.HF_HUB_OFFLINE and sys.modules["datasets"].config.HF_HUB_OFFLINE


def test_whether_a_server_answers_is_found_out():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub._is_reachable(f"http://127.0.0.1:{server.server_port}/")
        closed = server.server_port
    assert not hub._is_reachable(f"http://127.0.0.1:{closed}/")
    assert not hub._is_reachable("no address")


@pytest.mark.parametrize(
    "name", ["", "../x", "/etc", "a/b/c", "a b", "a\nb", "x" * 5000, "a/..", ".hidden", "a@../b", "a\0"]
)
def test_a_name_that_is_none_of_the_hubs_is_refused(monkeypatch, name):
    asked = []
    stand_in(monkeypatch, {}, asked)
    with pytest.raises(DataError, match="should be hf:owner/name") as caught:
        open_source(f"hf:{name}")
    assert not asked and len(str(caught.value)) < 200 and str(caught.value).isprintable()


def test_a_folder_is_not_taken_for_a_data_set_of_the_hub(monkeypatch, tmp_path):
    stand_in(monkeypatch, {}, [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(DataError, match="there is a folder owner/name here"):
        open_source("hf:owner/name")


def test_a_torchvision_data_set_is_not_fetched_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="--download"):
        open_source("cifar10")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(hub.TORCHVISION))
def test_every_named_data_set_exists_in_torchvision(name):
    from torchvision import datasets

    assert hasattr(datasets, hub.TORCHVISION[name].kind)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 8, 8, 3), (3, 3, 8, 8)])
def test_arrays_of_any_layout_become_rgb(monkeypatch, tmp_path, shape):
    from torchvision import datasets

    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    class Fake:
        classes = ["zero", "one"]

        def __init__(self, root, train, download):
            self.data, self.targets = values, [0, 1, 1]

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    source = hub.open_torchvision("cifar10", download=False, root=tmp_path)
    assert source.classes == ("zero", "one") and set(source.splits) == {"train", "test"}
    pixels = source.splits["train"].decode(2)
    assert pixels.shape == (8, 8, 3)
    expected = {3: lambda v: np.repeat(v[..., None], 3, 2), 4: lambda v: v if shape[3] == 3 else v.transpose(1, 2, 0)}
    assert (pixels == expected[len(shape)](values[2])).all()


def test_files_of_a_torchvision_data_set_are_read_as_files(monkeypatch, tmp_path, photo, encoded):
    from torchvision import datasets

    (tmp_path / "a.jpg").write_bytes(encoded(photo(1)))

    class Fake:
        classes = [("tench", "Tinca tinca"), ("English springer",)]

        def __init__(self, root, split, download):
            self._samples = [(str(tmp_path / "a.jpg"), 0), (str(tmp_path / "a.jpg"), 1)]

    monkeypatch.setattr(datasets, "Imagenette", Fake)
    source = hub.open_torchvision("imagenette", download=False, root=tmp_path)
    assert source.classes == ("tench", "English springer") and source.splits["val"].labels.tolist() == [0, 1]
    assert source.splits["train"].read_bytes(1) == encoded(photo(1)) and source.splits["train"].image_name(1) == "a.jpg"


def test_classes_of_one_name_are_told_apart_by_their_labels():
    data_set = types.SimpleNamespace(classes=[("crane", "bird"), "tench", ("crane",)])
    assert hub._class_names(data_set) == ["crane 0", "tench", "crane 2"]
