"""nginx before the nodes of the demo, with the settings for passing on that `deploy/nginx` ships."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from postroom.errors import PostroomError

_SEARCHED: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")
"""Where it is installed, beside PATH: those who are not root often have no sbin there."""

_PROXY: Final = (
    Path(__file__).with_name("postroom-proxy.conf"),  # in the wheel
    Path(__file__).parents[3] / "deploy" / "nginx" / "postroom-proxy.conf",  # in the repository
)
_TRY_SECONDS: Final = 10.0

_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/octet-stream;
  client_body_temp_path temporary;
  proxy_temp_path temporary;
  fastcgi_temp_path temporary;
  uwsgi_temp_path temporary;
  scgi_temp_path temporary;

  map $http_upgrade $postroom_connection {{ default upgrade; '' ''; }}
  map $http_upgrade $postroom_nodes {{ default postroom_websockets; '' postroom_requests; }}

  upstream postroom_websockets {{
{nodes}
  }}
  upstream postroom_requests {{
{nodes}
  }}

  server {{
    listen {host}:{port};

{proxy}
  }}
}}
"""


class NoNginx(PostroomError):
    """It is not to be had, or does not take the settings."""


def config(host: str, port: int, nodes: Sequence[int]) -> str:
    """The settings of an nginx that listens at `host` and deals out to the ports `nodes`, one after the other."""
    found = next((file for file in _PROXY if file.exists()), None)
    if found is None:
        raise NoNginx("postroom-proxy.conf is missing")
    return _CONFIG.format(
        host=f"[{host}]" if ":" in host else host,
        port=port,
        nodes="\n".join(f"    server 127.0.0.1:{node} max_fails=0;" for node in nodes),
        proxy="\n".join(f"    {line}".rstrip() for line in found.read_text(encoding="utf-8").splitlines()),
    )


def prepare(folder: Path, text: str) -> Sequence[str]:
    """Write the settings to `folder`; what to start there. Raises NoNginx where nginx is missing or refuses them."""
    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SEARCHED]))
    if program is None:
        raise NoNginx("nginx is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = (program, "-p", f"{folder.resolve()}/", "-c", "nginx.conf", "-e", "stderr")
    try:
        tried = subprocess.run(
            [*command, "-t", "-q"], capture_output=True, text=True, timeout=_TRY_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoNginx(f"nginx does not run: {error}") from error
    if tried.returncode:
        raise NoNginx(f"nginx refuses its settings: {tried.stderr.strip()}")
    return command
