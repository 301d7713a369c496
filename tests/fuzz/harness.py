"""Hostile inputs tried one by one, each in a child process with limits; what came of it is an `Outcome`.

A `Family` makes an input from a seed and uses it as a reader of the project's would. Its child is forked from a server
that has imported the package already (about 10 ms per case) and is watched from outside: its time, its peak memory, its
death; and from inside: every file it opens, makes, moves or removes, and every process or connection it starts.

Run `python -m tests.fuzz --help` for the long run; `tests/fuzz/test_*.py` runs a few seeds of every family.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
# Where a child may read besides its own folder: the code that runs, and what the system tells of itself.
READABLE = (
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/urandom",
    "/usr/",
    "/lib",
    "/etc/",
    "/opt/",
    sys.prefix,
    sys.base_prefix,
)
# Of audited events: the places of their path arguments, and whether they change something there.
EVENTS = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "shutil.rmtree": (0,),
}
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
LONGEST_MESSAGE = 1000  # characters of an error that a reader is shown


@dataclass(frozen=True)
class Limits:
    """What one case may cost: seconds, and MiB above what the process held before it."""

    seconds: float = 5.0
    memory: int = 600


@dataclass(frozen=True)
class Family:
    """A kind of hostile input.

    `make(rng, folder)` writes one below `folder` and returns what `use` takes, preferably a path; it runs in the child
    too, but neither its time nor its memory counts. `use(target)` does what a user would do with it and returns a few
    words on what came out (such as "read"); it lets the project's own errors pass. `allowed` are exceptions besides
    these that are no fault, such as OSError. `prepare(folder)` is called once per family for what all cases share
    (a trained run, a store); its result is passed to `make` as third argument where it is given.
    """

    name: str
    make: Callable[..., Any]
    use: Callable[[Any], str | None]
    limits: Limits = Limits()
    allowed: tuple[type[BaseException], ...] = ()
    prepare: Callable[[Path], Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    `kind`: read (it was used), refused (the project's own error, in one line), or one of the faults: crash, hang,
    memory, traceback, outside (a file touched outside its place, or a process or connection begun), message (an error
    that is empty, of many lines or too long). `seconds` and `memory` (MiB) are those of `use`; `text` says what came
    out.
    """

    family: str
    seed: int
    kind: str
    text: str
    seconds: float
    memory: float

    @property
    def fault(self) -> bool:
        """Whether it is one."""
        return self.kind not in ("read", "refused")


class Server:
    """A process that runs the cases of one module's families: `Server("tests.fuzz.images")`."""

    def __init__(self, module: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        command = [sys.executable, "-m", "tests.fuzz.harness", module]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, family: str, seed: int) -> Outcome:
        """Try one case."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([family, seed]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self.process.wait()} before {family} {seed}")
        return Outcome(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def families(module: str) -> dict[str, Family]:
    """The families of a module, by name: its `FAMILIES`."""
    return {family.name: family for family in import_module(module).FAMILIES}


def serve(module: str) -> None:
    """Answer `[family, seed]` lines of standard input with outcomes, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    known = families(module)
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["XDG_CACHE_HOME"] = os.environ["HOME"] = str(place / "home")
    (place / "home").mkdir()
    shared: dict[str, Any] = {}
    try:
        for line in sys.stdin:
            name, seed = json.loads(line)
            family = known[name]
            if family.prepare and name not in shared:
                (place / name).mkdir()
                shared[name] = family.prepare(place / name)
            outcome = attempt(family, seed, place, shared.get(name))
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def attempt(family: Family, seed: int, place: Path, shared: Any = None) -> Outcome:
    """Run a case in a child of this process and watch it."""
    folder = place / f"{family.name}-{seed}"
    folder.mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(family, seed, folder, shared, writing)
    os.close(writing)
    try:
        return _watch(family, seed, child, reading)
    finally:
        os.close(reading)
        shutil.rmtree(folder, ignore_errors=True)


def _watch(family: Family, seed: int, child: int, reading: int) -> Outcome:
    """Read the child's messages, "ready" when its input is made and then its outcome, and kill it when time is over."""
    text, began = b"", 0.0
    end = time.monotonic() + 120  # to make the input
    while True:
        if not select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        block = os.read(reading, 1 << 16)
        if not block:
            break
        text += block
        if not began and b"\n" in text:
            began = time.monotonic()
            end = began + family.limits.seconds + 1
    seconds = time.monotonic() - began if began else 0.0
    late = time.monotonic() >= end
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    lines = text.decode().splitlines()
    if late:
        return Outcome(family.name, seed, "hang", f"not done after {seconds:.1f} s", round(seconds, 3), 0.0)
    if len(lines) < 2:
        code = os.waitstatus_to_exitcode(status)
        return Outcome(family.name, seed, "crash", f"the process ended with {code}", round(seconds, 3), 0.0)
    kind, said, seconds, memory = json.loads(lines[1])
    return Outcome(family.name, seed, kind, said, seconds, memory)


def _child(family: Family, seed: int, folder: Path, shared: Any, writing: int) -> None:
    """Make the input, use it, report, and leave at once."""
    try:
        os.chdir(folder)
        random_numbers = random.Random(f"{family.name} {seed}")
        arguments = (random_numbers, folder) if family.prepare is None else (random_numbers, folder, shared)
        target = family.make(*arguments)
        os.write(writing, b"ready\n")
        answer = _use(family, target, folder)
    except BaseException:
        os.write(writing, b"ready\n" + json.dumps(["crash", traceback.format_exc()[-2000:], 0.0, 0.0]).encode() + b"\n")
        os._exit(1)
    os.write(writing, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _use(family: Family, target: Any, folder: Path) -> tuple[str, str, float, float]:
    from alexnet.errors import AlexnetError

    before = _restart_peak()
    touched = _audit(folder)
    room = (family.limits.memory + 4096) * MIB  # the machine is spared; the limit itself is on what was really used
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + room, resource.RLIM_INFINITY))
    began = time.perf_counter()
    try:
        kind, said = "read", str(family.use(target) or "")
    except AlexnetError as error:
        said = str(error)
        kind = "refused" if 0 < len(said) < LONGEST_MESSAGE and "\n" not in said and said.isprintable() else "message"
    except family.allowed as error:
        kind, said = "refused", f"{type(error).__name__}: {error}"
    except BaseException:
        kind, said = "traceback", traceback.format_exc()[-3000:]
    seconds, memory = time.perf_counter() - began, (_status("VmHWM") - before) / MIB
    if touched:
        kind, said = "outside", "; ".join(touched[:5])
    elif kind in ("read", "refused") and memory > family.limits.memory:
        kind, said = "memory", f"{memory:.0f} MiB: {said}"
    elif kind in ("read", "refused") and seconds > family.limits.seconds:
        kind, said = "hang", f"{seconds:.1f} s: {said}"
    return kind, said[:3000], round(seconds, 4), round(memory, 1)


def _audit(folder: Path) -> list[str]:
    """Watch this process from now on; the list fills with what it touches outside `folder` and its cache."""
    touched: list[str] = []
    readable = tuple(os.path.realpath(path) for path in (*READABLE, ROOT, *sys.path) if path) + ("/proc", "/sys")
    own = (os.path.realpath(folder), os.path.realpath(os.environ["HOME"]))

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            places = own if writes and path != "/dev/null" else (*own, *readable)
            if not path.startswith(places):
                touched.append(f"{'writes' if writes else 'reads'} {path}")
        elif event in EVENTS:
            for place in EVENTS[event]:
                if isinstance(arguments[place], str | bytes | os.PathLike):
                    path = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(arguments[place]))))
                    if not path.startswith(own):
                        touched.append(f"{event} {os.fsdecode(arguments[place])}")
        elif event in FORBIDDEN:
            touched.append(f"{event} {str(arguments)[:100]}")

    sys.addaudithook(look)
    return touched


def _restart_peak() -> int:
    """Begin the peak of this process's memory anew; return its bytes now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM")
    except OSError:
        return _status("VmRSS")


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))


def run(module: str, seeds: Iterator[int] | range, names: list[str] | None = None) -> Iterator[Outcome]:
    """Yield the outcomes of the families of a module for each seed."""
    with Server(module) as server:
        for seed in seeds:
            for name in names or families(module):
                yield server.run(name, seed)


def where() -> dict[str, Any]:
    """What a record says of when and where: date, versions, hardware, platform, commit."""
    from alexnet.environment import environment

    known = environment()
    names = ("versions", "hardware", "platform", "commit")
    return {"date": date.today().isoformat(), **{name: known[name] for name in names}}


if __name__ == "__main__":
    serve(sys.argv[1])
