"""Programs of Debian 13 for a Debian that has older ones: unpacked into a cache of this machine, once for all trees and
runs. Nothing is installed, and no rights are needed.

They want Debian 13's C library: each is started by the loader that comes with it.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.services import require

_SUITE: Final = "trixie"
_ELF: Final = b"\x7fELF"


class Package(NamedTuple):
    """`service` names it in messages; of what `package` needs, the archives that begin with one of `parts`."""

    service: str
    package: str
    parts: Sequence[str]


Wrap = Callable[[Path, Path], None]
"""Is given what was unpacked, and where it will be; makes programs in its `bin`."""


def unpacked(what: Package, folder: str, program: str, wrap: Wrap) -> Path:
    """The folder: like `/` of Debian 13, with `program` in `bin`."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    there = home / "postroom" / folder
    if (there / "bin" / program).is_file():
        return there
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=there.parent) as place:
        made = Path(place) / "made"
        for archive in _archives(what, Path(place)):
            _run(what, "dpkg-deb", "-x", str(archive), str(made))
        (made / "bin").unlink(missing_ok=True)
        (made / "bin").mkdir()
        wrap(made, there)
        if not (there / "bin" / program).is_file():  # or somebody else was quicker
            shutil.rmtree(there, ignore_errors=True)
            made.rename(there)
            there.chmod(0o755)
    return there


def start_by_loader(script: Path, program: Path, made: Path, there: Path) -> None:
    """Make `script`, which starts `program` with the libraries that came with it once `made` is `there`."""
    (library,) = (made / "usr/lib").glob("*-linux-gnu*")
    loader = next(library.glob("ld-linux*.so.*"))
    loader_there, library_there, program_there = (there / each.relative_to(made) for each in (loader, library, program))
    write_script(script, f'exec {loader_there} --library-path {library_there} {program_there} "$@"')


def write_script(file: Path, *lines: str) -> None:
    """A script of the shell's that may be run."""
    file.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
    file.chmod(0o755)


def is_program(file: Path) -> bool:
    """Whether it is one that a loader starts."""
    return file.is_file() and file.read_bytes().startswith(_ELF)


def _archives(what: Package, place: Path) -> list[Path]:
    """What is needed, fetched from the mirror that this machine's apt is set to use, and verified with its keys."""
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True)
    (place / "status").touch()  # nothing is installed: all that is needed is fetched
    (place / "sources.list").write_text(f"deb {_mirror(what)} {_SUITE} main\n", encoding="utf-8")
    options = {
        "Dir::State::lists": place / "lists",
        "Dir::State::status": place / "status",
        "Dir::Etc::sourcelist": place / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Cache": place,
        "Dir::Cache::archives": place / "archives",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    _run(what, "apt-get", *given, "-qq", "--error-on=any", "update")
    _run(what, "apt-get", *given, "-qq", "-y", "--no-install-recommends", "--download-only", "install", what.package)
    return [file for file in (place / "archives").glob("*.deb") if file.name.startswith(tuple(what.parts))]


def _mirror(what: Package) -> str:
    system = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    require(what.service, found=system.get("ID") == "debian", install="the tests fetch it on Debian only")
    told = _run(
        what, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"
    )
    own = f"{system.get('VERSION_CODENAME')} main "
    mirror = next((line.removeprefix(own) for line in told.splitlines() if line.startswith(own)), "")
    require(what.service, found=bool(mirror), install="apt has no source of Debian's packages")
    return mirror


def _run(what: Package, *command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    why = f"{' '.join(command[:1])} says {(done.stderr or done.stdout)[-1000:].strip()}"
    require(what.service, found=done.returncode == 0, install=why)
    return done.stdout
