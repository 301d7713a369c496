"""The house: imports run one way, every module imports with the core dependencies, the command starts at once."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet

SOURCE = Path(alexnet.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(alexnet.__path__, "alexnet."))
EXTRAS = (
    "datasets",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "nncf",
    "tensorboard",
    "wandb",
    "mlflow",
    "faiss",
    "fastapi",
    "uvicorn",
    "gradio",
    "cv2",
    "skimage",
    "hypothesis",
    "pytest",
    "triton",
    "webdataset",
)
# From the ground up: a module imports from its own room and from those before it. The longest prefix names a room.
ROOMS = (
    "errors",
    "files",
    "records",
    "progress",
    "device",
    "environment",
    "setting",
    "architecture",
    "config",
    "cifar",
    "presets",
    "ablations",
    "config_file",
    "comparison",
    "run",
    "named",
    "engine",
    "model",
    "checkpoint",
    "data",
    "data.readers",
    "data.store",
    "data.run_data",
    "formats",
    "evaluation",
    "training",
    "predictor",
    "baselines",
    "inference",
    "report",
    "reproduce",
    "commands",
    "cli",
    "__main__",
)
FACE = "alexnet"  # the public names, imported when they are first asked for; its version anyone may read


def room(module: str) -> str:
    """The room of `alexnet.data.store.prepare` is `data.store`."""
    inside = module.removeprefix("alexnet.")
    fitting = [name for name in ROOMS if inside == name or inside.startswith(name + ".")]
    assert fitting, f"{module} is in no room: give it a place in ROOMS and docs/architecture.md"
    return max(fitting, key=len)


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports anywhere, inside functions too, but not for type checking."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == FACE}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and node.module.partition(".")[0] == FACE:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.add(whole if whole in MODULES else node.module)
    return found


def graph() -> dict[str, set[str]]:
    """Module → modules of this package that it imports."""
    out = {}
    for name in MODULES:
        path = SOURCE.joinpath(*name.split(".")[1:])
        out[name] = imports(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    return out


def test_imports_run_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if other != FACE and ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert not wrong, wrong


def test_there_are_no_circles() -> None:
    todo = {module: {other for other in others if other != FACE} for module, others in graph().items()}
    while free := [module for module, others in todo.items() if not others & todo.keys()]:
        for module in free:
            del todo[module]
    assert not todo, f"these import each other: {sorted(todo)}"


def test_only_the_face_is_imported_for_its_version() -> None:
    for name in MODULES:
        path = SOURCE.joinpath(*name.split(".")[1:])
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == FACE:
                for alias in node.names:
                    assert f"{FACE}.{alias.name}" in MODULES or alias.name == "__version__", f"{name}: {alias.name}"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_every_module_imports_without_the_extras() -> None:
    code = (
        "import sys, importlib\n"
        f"extras = {EXTRAS!r}\n"
        "sys.modules.update(dict.fromkeys(extras))\n"  # as if none were installed
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("heavy", ["torch", "numpy", "matplotlib", "PIL"])
def test_the_command_line_starts_without(heavy: str) -> None:
    done = python(f"import sys, alexnet.cli, alexnet.presets; sys.exit({heavy!r} in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_there() -> None:
    for name in alexnet.__all__:
        assert callable(getattr(alexnet, name)) or name in ("errors", "presets"), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = alexnet.trian
