"""A wheel installed into an empty environment where no compiler is to be found: `python tests/wheel.py dist`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

CORE = ("numpy", "pillow", "simplejpeg", "safetensors", "rich")
ROOT = Path(__file__).parents[1]


def oldest_glibc(library: Path) -> str:
    """The newest version of the C library that a shared library asks for."""
    symbols = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)
    return "glibc {}.{}".format(*max((int(major), int(minor)) for major, minor in versions))


def main(folder: str) -> None:
    """Install the only wheel there is, and let it prove itself."""
    (wheel,) = Path(folder).resolve().glob("alexnet-*.whl")
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(wheel) as packed:
        (library,) = [one for one in packed.namelist() if "/engine/built/" in one]
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {Path(library).name} needs ", end="")
        found = Path(packed.extract(library, Path(name, "unpacked")))
        print(
            oldest_glibc(found) if shutil.which("objdump") and found.suffix == ".so" else "no glibc that is known here"
        )
        venv.create(Path(name, "venv"), with_pip=True)
        python = str(Path(name, "venv", "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), *CORE], check=True)
        subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
        # Nothing of this environment, and no folder in which there could be a compiler.
        environ = {"PATH": str(Path(python).parent), "HOME": name, "LANG": os.environ.get("LANG", "C.UTF-8")}
        smoke = shutil.copy(ROOT / "tests" / "smoke.py", name)
        subprocess.run([python, smoke], cwd=name, env=environ, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
