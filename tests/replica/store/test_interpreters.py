"""The digest of a fixed history is the same however, and by whatever, Python is run.

Replicas of one cluster run on machines that differ: a digest that depends on the hash seed, on
asserts, on the locale, the time zone or the build would stop them. Each way is a process of its
own; a dependence that is planted shows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from replica.store.test_store import GOLDEN

PROJECT = Path(__file__).resolve().parents[3]
PATHS = [str(PROJECT / name) for name in ("client", "replica", "tests")]


@dataclass(frozen=True)
class Way:
    """Options and environment of one interpreter."""

    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


WAYS = {
    "hash seed 0": Way(environment={"PYTHONHASHSEED": "0"}),
    "hash seed 1": Way(environment={"PYTHONHASHSEED": "1"}),
    "hash seed 4242": Way(environment={"PYTHONHASHSEED": "4242"}),
    "no asserts": Way(options=("-O",)),
    "no docstrings": Way(options=("-OO",)),
    "developer mode": Way(options=("-X", "dev")),
    "another locale": Way(
        environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ),
    "another time zone": Way(environment={"TZ": "Pacific/Kiritimati"}),
    "another allocator": Way(environment={"PYTHONMALLOC": "malloc"}),
}
"""Every machine has these: they need nothing but the Python that runs the tests."""

DEPENDENCES = {
    "hash seed": "hash(b'x').to_bytes(8, 'big', signed=True)",
    "no asserts": "bytes([__debug__])",
    "no docstrings": "bytes([digest.__doc__ is None])",
    "another locale": "locale.getpreferredencoding(False).encode()",
    "another time zone": "time.tzname[0].encode()",
}
PLANTED = """
import locale, time
from dwcp_replica.store import digest
proper = digest.state_digest
digest.state_digest = lambda root: proper(root + {dependence})
from replica.store.driver import Driver
from replica.store.history import scenario
driver = Driver()
scenario(driver)
print(driver.store.digest().hex())
"""


def digest_in(python: str, way: Way, *program: str, more_paths: tuple[str, ...] = ()) -> str:
    """The digest of the fixed history, computed by another process."""
    path = os.pathsep.join((*PATHS, *more_paths))
    done = subprocess.run(
        [python, *way.options, *(program or ("-m", "replica.store.history"))],
        env=os.environ | {"PYTHONPATH": path} | way.environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", WAYS)
def test_digest_does_not_depend_on_how_python_is_run(name: str) -> None:
    assert digest_in(sys.executable, WAYS[name]) == GOLDEN


@pytest.mark.parametrize("name", DEPENDENCES)
def test_a_dependence_is_seen(name: str) -> None:
    """Planted into the digest, in the ways that name it and in one that does not."""
    program = ("-c", PLANTED.format(dependence=DEPENDENCES[name]))
    ways = [way for known, way in WAYS.items() if known.startswith(name)][:2]
    found = {digest_in(sys.executable, way, *program) for way in (*ways, WAYS["hash seed 0"])}
    assert len(found) > 1, "all agree, though they must not"


def interpreters() -> list[tuple[str, tuple[str, ...]]]:
    """Other Pythons of this machine that can run DWCP, with where they find our libraries."""
    names = [f"python3.{minor}" for minor in range(11, 16)]
    found = {Path(path).resolve() for name in names if (path := shutil.which(name)) is not None}
    found |= {Path("/usr/bin") / name for name in names if (Path("/usr/bin") / name).exists()}
    found |= set(Path.home().glob(".pyenv/versions/*/bin/python3"))
    found |= set(Path.home().glob(".local/share/uv/python/*/bin/python3"))
    found |= set(map(Path, filter(None, os.environ.get("DWCP_PYTHONS", "").split(os.pathsep))))
    ours = str(Path(msgspec.__file__).parents[1])
    mine = Path(sys.executable).resolve()
    others = sorted({path.resolve() for path in found} - {mine})
    ways = [(str(path), libraries) for path in others for libraries in ((), (ours,))]
    return [way for way in ways if _is_able(*way)]


def _is_able(python: str, libraries: tuple[str, ...]) -> bool:
    needs = "import msgspec, sortedcontainers, nacl, cryptography"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(libraries)}
    done = subprocess.run([python, "-c", needs], capture_output=True, check=False, env=environment)
    return done.returncode == 0


@pytest.mark.slow
def test_digest_does_not_depend_on_the_interpreter(tell: Callable[[str], None]) -> None:
    """Every other Python that has our libraries or can use those of this one; DWCP_PYTHONS names
    more. Without any, the ways above are what is checked."""
    able = interpreters()
    for python, libraries in able:
        assert digest_in(python, Way(), more_paths=libraries) == GOLDEN, python
    tell(f"state digest: equal in {len(able)} interpreters besides this one, and {len(WAYS)} ways")
