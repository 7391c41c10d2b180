"""Postroom as an application of other ASGI servers, each a process."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
FORMS = {
    "uvicorn": ("asgi_app", ""),
    "hypercorn": ("asgi_app", ""),
    "granian": ("asgi_app", ""),
    "fastapi": ("fastapi_app", "/chat"),
    "django": ("django_app", "/chat"),
}
"""The module of `examples/`, and where in it Postroom is mounted."""


class AsgiServer(Server):
    """An example under an ASGI server; its settings come from the environment, as an operator's would."""

    def __init__(
        self, folder: Path, form: str, *, config: str = "", store: str = "", options: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, config=config, store=store, options=options)
        self.form = form
        self._module, self.mount = FORMS[form]

    @property
    def url(self) -> str:
        """Where STOMP is spoken."""
        return f"ws://127.0.0.1:{self.port}{self.mount}/ws"

    @property
    def http(self) -> str:
        """What all paths of Postroom begin with."""
        return f"http://127.0.0.1:{self.port}{self.mount}"

    def _command(self) -> list[str]:
        port, app = str(self.port), f"{self._module}:app"
        match self.form:
            case "hypercorn":
                where = ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1"]
            case "granian":
                where = ["--interface", "asgi", "--host", "127.0.0.1", "--port", port]
            case _:
                where = ["--ws", "websockets-sansio", "--port", port]
        program = self.form if self.form in ("hypercorn", "granian") else "uvicorn"
        return [sys.executable, "-m", program, *where, *self._options, app]

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        environment["PYTHONPATH"] += f":{EXAMPLES}"
        environment |= {"POSTROOM_DEV": "true", "POSTROOM_STORE": self._store}
        if self._config:
            environment["POSTROOM_CONFIG"] = str(self._written_config())
        return environment
