"""RabbitMQ 4 with its Erlang, Debian 13's, for a Debian that has older ones: unpacked into a cache of this machine,
once for all trees and runs. Nothing is installed, and no rights are needed.

The programs want Debian 13's C library: each is started by the loader that comes with it.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.services import require

_SUITE: Final = "trixie"
_NEEDED: Final = ("rabbitmq-server_", "erlang-", "lib", "zlib1g_")
_ELF: Final = b"\x7fELF"


def unpacked() -> Path:
    """The folder: like `/` of Debian 13, with an `erl` and an `epmd` for a PATH in `bin`."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "postroom" / "rabbitmq-4"
    if (folder / "bin" / "erl").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / "made"
        for archive in _archives(Path(place)):
            _run("dpkg-deb", "-x", str(archive), str(made))
        _wrap(made, folder)
        if not (folder / "bin" / "erl").is_file():  # or somebody else was quicker
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return folder


def _archives(place: Path) -> list[Path]:
    """What is needed, fetched from the mirror that this machine's apt is set to use, and verified with its keys."""
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True)
    (place / "status").touch()  # nothing is installed: all that is needed is fetched
    (place / "sources.list").write_text(f"deb {_mirror()} {_SUITE} main\n", encoding="utf-8")
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
    _run("apt-get", *given, "-qq", "--error-on=any", "update")
    _run("apt-get", *given, "-qq", "-y", "--no-install-recommends", "--download-only", "install", "rabbitmq-server")
    return [file for file in (place / "archives").glob("*.deb") if file.name.startswith(_NEEDED)]


def _mirror() -> str:
    system = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    require("RabbitMQ 4", found=system.get("ID") == "debian", install="the tests fetch it on Debian only")
    told = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    own = f"{system.get('VERSION_CODENAME')} main "
    mirror = next((line.removeprefix(own) for line in told.splitlines() if line.startswith(own)), "")
    require("RabbitMQ 4", found=bool(mirror), install="apt has no source of Debian's packages")
    return mirror


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    why = f"{' '.join(command[:1])} says {(done.stderr or done.stdout)[-1000:].strip()}"
    require("RabbitMQ 4", found=done.returncode == 0, install=why)
    return done.stdout


def _wrap(made: Path, folder: Path) -> None:
    """Let the programs in `made` run once it is `folder`."""
    (library,) = (made / "usr/lib").glob("*-linux-gnu*")
    loader = next(library.glob("ld-linux*.so.*"))
    (programs,) = (made / "usr/lib/erlang").glob("erts-*/bin")

    def there(file: Path) -> Path:
        return folder / file.relative_to(made)

    for program in [*programs.iterdir(), *(made / "usr/lib/erlang/lib").glob("os_mon-*/priv/bin/*")]:
        if program.is_file() and program.read_bytes().startswith(_ELF):
            moved = program.rename(program.with_name(f"{program.name}.elf"))
            _script(program, f'exec {there(loader)} --library-path {there(library)} {there(moved)} "$@"')
    root = made / "usr/lib/erlang"
    (made / "bin").mkdir()
    _script(made / "bin/epmd", f'exec {there(programs / "epmd")} "$@"')
    _script(
        made / "bin/erl",
        f"export ROOTDIR={there(root)} BINDIR={there(programs)} EMU=beam PROGNAME=erl",
        f'exec {there(programs / "erlexec")} "$@"',
    )


def _script(file: Path, *lines: str) -> None:
    file.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
    file.chmod(0o755)


if __name__ == "__main__":
    sys.stdout.write(f"{unpacked()}\n")
