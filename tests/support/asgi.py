"""Postroom as an application of other ASGI servers, each a process."""

import sys
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

    def __init__(self, folder: Path, form: str, *, config: str = "", store: str = "", module: str = "") -> None:
        super().__init__(folder, config=config, store=store)
        self.form = form
        named, self.mount = FORMS[form]
        self._module = module or named

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
                options = ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1"]
            case "granian":
                options = ["--interface", "asgi", "--host", "127.0.0.1", "--port", port]
            case _:
                return [sys.executable, "-m", "uvicorn", "--ws", "websockets-sansio", "--port", port, app]
        return [sys.executable, "-m", self.form, *options, app]

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        environment["PYTHONPATH"] += f":{EXAMPLES}"
        environment |= {"POSTROOM_DEV": "true", "POSTROOM_STORE": self._store}
        if self._config:
            environment["POSTROOM_CONFIG"] = str(self._written_config())
        return environment
