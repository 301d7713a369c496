"""Every module imports with the core dependencies alone, and the command starts without the heavy ones."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import alexnet

MODULES = sorted(module.name for module in pkgutil.walk_packages(alexnet.__path__, "alexnet."))
EXTRAS = ("datasets", "huggingface_hub", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "faiss", "fastapi",
          "uvicorn", "gradio", "cv2", "skimage", "hypothesis", "pytest", "triton", "webdataset")


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
        assert callable(getattr(alexnet, name)), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = alexnet.trian
