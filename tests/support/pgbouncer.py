"""A real PgBouncer before a PostgreSQL: this system's, or Debian 13's, which keeps prepared statements."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support import debian_13
from tests.support.engines import Broker
from tests.support.postgres import Postgres
from tests.support.services import require

_WHAT: Final = debian_13.Package("PgBouncer 1.24", "pgbouncer", ("pgbouncer_", "lib"))
_PROGRAM: Final = "/usr/sbin/pgbouncer"


def newer() -> str:
    """Debian 13's."""
    return str(debian_13.unpacked(_WHAT, "pgbouncer-1.24", "pgbouncer", _wrap) / "bin/pgbouncer")


def installed() -> str:
    """The system's."""
    found = shutil.which("pgbouncer") or (_PROGRAM if Path(_PROGRAM).is_file() else None)
    require("pgbouncer", found=found is not None, install="apt-get install pgbouncer")
    assert found is not None
    return found


def _wrap(made: Path, there: Path) -> None:
    debian_13.start_by_loader(made / "bin/pgbouncer", made / "usr/sbin/pgbouncer", made, there)


class PgBouncer(Broker):
    """It pools what `mode` says, `statements` that are prepared are kept for each server connection."""

    name = "pgbouncer"

    def __init__(self, server: Postgres, *, mode: str, statements: int = 0, size: int = 20) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="postroom-pgbouncer-")))
        self._server = server
        self._program = newer() if statements else installed()
        kept = f"max_prepared_statements = {statements}\n" if statements else ""
        (self.folder / "users").write_text('"postroom" ""\n', encoding="utf-8")
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.folder}/users\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\nserver_login_retry = 0.2\n{kept}",
            encoding="utf-8",
        )

    def url_of(self, schema: str, **options: str) -> str:
        """Where it listens, for a schema of the server's."""
        return self._server.url(schema, port=self.port, **options)

    def command(self) -> list[str]:
        """See `Broker.command`."""
        user = ["-u", "postgres"] if os.geteuid() == 0 else []
        return [self._program, *user, str(self.folder / "pgbouncer.ini")]

    def close(self) -> None:
        """See `Broker.close`."""
        super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdout.write(f"{newer()}\n")
