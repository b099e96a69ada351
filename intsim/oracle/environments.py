"""Virtual environments of their own for systems whose packages conflict with those of others.

One lies at environments/NAME-VERSION-pyX.Y in the cache folder (INTSIM_CACHE_DIR). It counts as made only
once a file inside it says so, which is written last: what an interrupted installation left is made anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from intsim.compiling import cache_root

COMPLETE = "intsim-complete.txt"


class InstallFailed(Exception):
    """An environment could not be made. The text says which step failed and what to do."""


def folder(requirement: str) -> Path:
    """Where the environment that holds ``requirement`` ("name==version") lies, made or not."""
    name = requirement.replace("==", "-")
    return cache_root() / "environments" / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"


def variable(system: str) -> str:
    """The environment variable that names another Python for ``system``."""
    return f"INTSIM_{system.upper()}_PYTHON"


def python(system: str, requirement: str, chosen: str | os.PathLike[str] | None = None) -> Path:
    """The Python that holds ``requirement``: ``chosen``, else what the variable names, else the environment.

    Raises ValueError, with what to do, where there is none.
    """
    for given, where in ((chosen, "--python"), (os.environ.get(variable(system)), f"${variable(system)}")):
        if given:
            if not os.access(given, os.X_OK) or Path(given).is_dir():
                raise ValueError(f"{where} names {os.fspath(given)!r}, which is no program: give the path of a Python")
            return Path(given).absolute()  # not resolved: a virtual environment is where its link lies
    if not _is_complete(folder(requirement), requirement):
        raise ValueError(
            f"{system} needs {requirement} in an environment of its own: make it once by "
            f"'intsim check {system} --install', or name a Python that has it by --python or {variable(system)}"
        )
    return _python_of(folder(requirement))


def install(requirement: str, *, quiet: bool = False) -> Path:
    """Makes the environment where it is not there yet, by ``python -m venv`` and pip; its Python.

    Progress goes to stderr unless ``quiet``. A second process that installs the same waits for the first.
    Raises InstallFailed.
    """
    place = folder(requirement)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_name(f"{place.name}.lock")):
            if not _is_complete(place, requirement):
                _make(place, requirement, quiet)
    except OSError as refused:
        raise InstallFailed(f"no environment can be made in {place.parent}: {refused}; see INTSIM_CACHE_DIR") from None
    return _python_of(place)


def ensure(system: str, requirement: str) -> None:
    """Installs quietly what ``python`` would not find. Raises InstallFailed."""
    if not os.environ.get(variable(system)):
        install(requirement, quiet=True)


def isolated_variables(python: Path) -> Mapping[str, str]:
    """Environment variables for a program of that Python: nothing of this process's own setup but its folders."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG", "SYSTEMROOT") if name in os.environ}
    return kept | {"PATH": str(python.parent)}


def _python_of(place: Path) -> Path:
    return place / "bin" / "python"


def _is_complete(place: Path, requirement: str) -> bool:
    """Whether it was made to the end and its Python still runs from where it was (a link to the one that made it)."""
    try:
        said = (place / COMPLETE).read_text()
    except OSError:
        return False
    return said.strip() == requirement and os.access(_python_of(place), os.X_OK)


def _make(place: Path, requirement: str, quiet: bool) -> None:
    shutil.rmtree(place, ignore_errors=True)
    interpreter = str(_python_of(place))
    try:
        _step("python -m venv", [sys.executable, "-m", "venv", str(place)], quiet)
        pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary=:all:", requirement]
        _step(f"pip install {requirement}", [interpreter, *pip], quiet)
        (place / COMPLETE).write_text(requirement + "\n")
    except BaseException:  # also Ctrl-C: nothing half made is left behind
        shutil.rmtree(place, ignore_errors=True)
        raise


def _step(name: str, command: list[str], quiet: bool) -> None:
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    if not quiet:
        sys.stderr.write(f"{name} ...\n")
        sys.stderr.flush()
    done = subprocess.run(
        command,
        env=outside,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else 2,  # stdout is for the report
        stderr=subprocess.STDOUT if quiet else None,
    )
    if done.returncode:
        said = (done.stdout or "").strip().splitlines()[-5:]
        shown = f": {' | '.join(said)}" if said else ", see above"
        raise InstallFailed(f"{name} ended with exit code {done.returncode}{shown}")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
