"""A real nginx before several nodes: round robin, WebSocket, nothing sticky."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.deadline import DEADLINE
from tests.support.server import free_port

PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  upstream nodes {{
{servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
      proxy_buffering off;
      proxy_request_buffering off;
      client_max_body_size 8m;
      proxy_next_upstream error timeout http_503;
      proxy_connect_timeout 2s;
    }}
  }}
}}
"""

_AROUND = """
{user}daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  include {folder}/site.conf;
}}
"""
_SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx" / "postroom-proxy.conf"


def around(folder: Path, site: str) -> list[str]:
    """Write a whole configuration around `site`, one of a file that ships; how to start nginx with it."""
    shutil.copy(_SHIPPED, folder)
    (folder / "site.conf").write_text(site.replace("/etc/nginx/", f"{folder}/"), encoding="utf-8")
    user = "user root; " if os.geteuid() == 0 else ""  # or its workers may not enter the test's folder
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, user=user), encoding="utf-8")
    return [PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


class Nginx:
    """One nginx process before the ports of some nodes."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.port = free_port()
        self._folder = folder
        self._log = folder / "nginx.log"
        self._process: subprocess.Popen[bytes] | None = None
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in ports)
        self._config = folder / "nginx.conf"
        self._config.write_text(_CONFIG.format(folder=folder, servers=servers, port=self.port), encoding="utf-8")

    def start(self) -> None:
        """Start it, and return once its port is open."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-p", str(self._folder), "-c", str(self._config)], stdout=log, stderr=log
            )
        end = time.monotonic() + DEADLINE
        while not (self._folder / "nginx.pid").exists():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, "nginx does not start"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(DEADLINE)
