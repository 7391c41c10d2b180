"""RabbitMQ 4 with its Erlang, Debian 13's, for a Debian that has older ones: see `debian_13`."""

import sys
from pathlib import Path
from typing import Final

from tests.support import debian_13

_WHAT: Final = debian_13.Package("RabbitMQ 4", "rabbitmq-server", ("rabbitmq-server_", "erlang-", "lib", "zlib1g_"))


def unpacked() -> Path:
    """The folder: like `/` of Debian 13, with an `erl` and an `epmd` for a PATH in `bin`."""
    return debian_13.unpacked(_WHAT, "rabbitmq-4", "erl", _wrap)


def _wrap(made: Path, folder: Path) -> None:
    """Let the programs in `made` run once it is `folder`."""
    (programs,) = (made / "usr/lib/erlang").glob("erts-*/bin")

    def there(file: Path) -> Path:
        return folder / file.relative_to(made)

    for program in [*programs.iterdir(), *(made / "usr/lib/erlang/lib").glob("os_mon-*/priv/bin/*")]:
        if debian_13.is_program(program):
            moved = program.rename(program.with_name(f"{program.name}.elf"))
            debian_13.start_by_loader(program, moved, made, folder)
    root = made / "usr/lib/erlang"
    debian_13.write_script(made / "bin/epmd", f'exec {there(programs / "epmd")} "$@"')
    debian_13.write_script(
        made / "bin/erl",
        f"export ROOTDIR={there(root)} BINDIR={there(programs)} EMU=beam PROGNAME=erl",
        f'exec {there(programs / "erlexec")} "$@"',
    )


if __name__ == "__main__":
    sys.stdout.write(f"{unpacked()}\n")
