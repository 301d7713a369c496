"""The part of the build that pyproject.toml cannot say: the compiled kernels, which are installed where they can be.

The library is loaded by ctypes, so one wheel serves every Python of a platform. Without a C++ compiler the package is
installed without it, and computes by torch or NumPy.
"""

import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ENGINE = runpy.run_path("src/alexnet/engine/build.py")


class BuildEngine(build_ext):
    """Compiles by the package's own table of targets."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library's own name, without that of a Python."""
        return str(Path(*fullname.split(".")[:-1], ENGINE["LIBRARY"].name))

    def build_extension(self, ext: Extension) -> None:
        """Compile, or say why there is none."""
        out = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            ENGINE["build"](out)
        except ENGINE["BuildError"] as error:
            out.unlink(missing_ok=True)
            print(f"alexnet is installed without its compiled kernels: {error}", file=sys.stderr)

    def copy_extensions_to_source(self) -> None:
        """Bring the library to the sources, where the package is installed for working on it."""
        if self.get_outputs():
            ENGINE["LIBRARY"].parent.mkdir(exist_ok=True)
            super().copy_extensions_to_source()

    def get_outputs(self) -> list[str]:
        """What there is to install."""
        return [name for name in super().get_outputs() if Path(name).exists()]


class AnyPython(bdist_wheel):
    """A wheel of one platform, for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-PLATFORM`."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("alexnet.engine.built.kernels", [], optional=True)],
    cmdclass={"build_ext": BuildEngine, "bdist_wheel": AnyPython},
)
