"""Builds the C libraries that intsim reproduces from their public sources, and judges them.

    python tests/conformance/c_libraries.py                        all of them: clone, compile, judge
    python tests/conformance/c_libraries.py deeploy --source PATH  from a checkout that is there
    python tests/conformance/c_libraries.py --record FILE          keeps the figures, for intsim profiles

It needs a C and a C++ compiler (``CC`` and ``CXX``, else ``cc`` and ``c++``) and, without --source, git
and the network. Signed integers wrap (-fwrapv): the sources let them overflow. A library carries the
commit that it was made of in a symbol, which the report shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "intsim-conformance"
FLAGS = ("-O2", "-fPIC", "-fwrapv", "-shared")


@dataclass(frozen=True)
class Library:
    """A library: where its source is, which commit was read, and what is compiled with which options.

    sources: patterns of files inside the checkout, without what ``without`` matches. own: files beside this one.
    profiles: each is a library of its own, with further options.
    """

    title: str
    repository: str
    commit: str
    sources: tuple[str, ...]
    options: tuple[str, ...]
    profiles: dict[str, tuple[str, ...]]
    without: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


LIBRARIES = {
    "cmsis_nn": Library(
        "CMSIS-NN",
        "ARM-software/CMSIS-NN",
        "99f736a63036613032f9b70de36b493bcd7802d4",
        tuple(
            f"Source/{part}Functions/*.c"
            for part in ("Activation", "BasicMath", "FullyConnected", "NNSupport", "Softmax")
        ),
        ("-IInclude",),
        {"cmsis_nn_double": (), "cmsis_nn_single": ("-DCMSIS_NN_USE_SINGLE_ROUNDING",)},
        without=("*_f16.c", "*_f32.c", "*_flt.c"),
    ),
    "gemmlowp": Library(
        "gemmlowp",
        "google/gemmlowp",
        "16e8662c34917be0065110bfcd9cc27d30f52fdf",
        (),
        ("-I.",),
        {"gemmlowp": ()},
        own=("gemmlowp_steps.cc",),
    ),
    "deeploy": Library(
        "Deeploy",
        "pulp-platform/Deeploy",
        "bf64cfaec26ed81091f40efa391b52021a8b5205",
        (
            "TargetLibraries/Generic/src/*_s8.c",
            "TargetLibraries/Generic/src/Util.c",
        ),
        # Two files define the same square root, which a static library lets pass
        ("-ITargetLibraries/Generic/inc", "-DDEEPLOY_GENERIC_PLATFORM", "-Wl,-z,muldefs"),
        {"deeploy": ()},
    ),
}


def main() -> int:
    """Builds and judges what the command line names; 0 where all conform."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=f"of {', '.join(LIBRARIES)}; default: all")
    parser.add_argument("--source", type=Path, help="a checkout of the one LIBRARY, instead of a clone")
    parser.add_argument("--record", type=Path, help="file for the figures, as intsim check --record")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where clones and libraries go; default: {CACHE}")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.libraries if name not in LIBRARIES]
    if unknown:
        parser.error(f"there is no library {unknown[0]!r}; there are {', '.join(LIBRARIES)}")
    if chosen.source and len(chosen.libraries) != 1:
        parser.error("--source is the checkout of one LIBRARY: name it")
    failed = []
    for name in chosen.libraries or LIBRARIES:
        library = LIBRARIES[name]
        source = chosen.source or clone(library, chosen.cache / name)
        for profile in library.profiles:
            made = compile_library(library, profile, source.resolve(), chosen.cache)
            sys.stdout.write(f"{made}\n")
            sys.stdout.flush()
            command = [sys.executable, "-m", "intsim", "check", f"c:{made}", "--profile", profile]
            command += ["--record", str(chosen.record)] if chosen.record else []
            if subprocess.run(command, check=False).returncode:
                failed.append(profile)
    if failed:
        sys.stderr.write(f"not equal: {', '.join(failed)}\n")
    return 1 if failed else 0


def clone(library: Library, folder: Path) -> Path:
    """The checkout of the pinned commit in ``folder``, fetched where it is not there yet."""
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        run("git", "-C", folder, "init", "--quiet")
    there = subprocess.run(["git", "-C", folder, "cat-file", "-e", f"{library.commit}^{{commit}}"], check=False)
    if there.returncode:
        url = f"https://github.com/{library.repository}"
        run("git", "-C", folder, "fetch", "--quiet", "--depth", "1", url, library.commit)
    run("git", "-C", folder, "checkout", "--quiet", "--detach", library.commit)
    return folder


def commit_of(library: Library, source: Path) -> str:
    """The commit of a checkout, "-changed" where files differ; without git, what it was told to be."""
    if not (source / ".git").exists():
        return "unknown"
    here = subprocess.run(["git", "-C", source, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    state = subprocess.run(["git", "-C", source, "status", "--porcelain"], capture_output=True, text=True, check=True)
    return here.stdout.strip() + ("-changed" if state.stdout.strip() else "")


def compile_library(library: Library, profile: str, source: Path, cache: Path) -> Path:
    """The shared library of ``profile``, compiled anew into ``cache``."""
    files = [p for pattern in library.sources for p in sorted(source.glob(pattern))]
    files = [p for p in files if not any(p.match(pattern) for pattern in library.without)]
    if library.sources and not files:
        raise SystemExit(
            f"{source} holds none of {', '.join(library.sources)}: is it a checkout of {library.repository}?"
        )
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"lib{profile}.so"
    options = [f"-I{source / o[2:]}" if o.startswith("-I") else o for o in library.options]
    options += [*FLAGS, *library.profiles[profile]]
    stamp = cache / f"{profile}_source.c"
    text = f'"{library.title} {commit_of(library, source)}"'
    stamp.write_text(f"extern const char intsim_source[];\nconst char intsim_source[] = {text};\n")
    compiler = os.environ.get("CXX", "c++") if library.own else os.environ.get("CC", "cc")
    own = [HERE / name for name in library.own]
    run(compiler, *options, "-o", made, *files, *own, stamp)
    return made


def run(*command: object) -> None:
    words: Sequence[str] = [str(word) for word in command]
    if subprocess.run(words, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(words)}")


if __name__ == "__main__":
    sys.exit(main())
