"""What a worker is told by who started it, on its standard input."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from postroom.app import Place
from postroom.http.siblings import Siblings
from postroom.listeners import Doors


class Errand(Struct, frozen=True):
    """Which application to serve with which settings, and where.

    `overrides` count as the command line does. `names` are those of all workers, `name` is this one's; in `folder` they
    answer one another. `web` and `stomp` are open files: bound sockets. A byte on the open file `serving` says that it
    serves.
    """

    application: str | None
    config: str | None
    overrides: Mapping[str, Any]
    names: Sequence[str]
    folder: str
    web: int
    stomp: int | None
    name: str = ""
    serving: int = -1

    @property
    def config_file(self) -> Path | None:
        """The settings' file, where one is named."""
        return Path(self.config) if self.config is not None else None

    @property
    def open_files(self) -> Sequence[int]:
        """What the worker inherits."""
        return [self.web, self.serving, *([self.stomp] if self.stomp is not None else [])]

    def place(self) -> Place:
        """Take over what was handed in; nothing of it goes on to programs that the application may start."""
        for each in self.open_files:
            os.set_inheritable(each, False)
        doors = Doors(
            socket.socket(fileno=self.web), socket.socket(fileno=self.stomp) if self.stomp is not None else None
        )
        return Place(doors, Siblings(Path(self.folder), self.names, self.name), self._say)

    def _say(self) -> None:
        os.write(self.serving, b"1")
        os.close(self.serving)


def encode(errand: Errand) -> str:
    """As it is written to the worker."""
    return msgspec.json.encode(errand).decode()


def read() -> Errand:
    """As it is read by the worker. Raises msgspec.DecodeError for somebody who started it by hand."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=Errand)
