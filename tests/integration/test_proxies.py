"""nginx, HAProxy and Caddy, each with what ships in `deploy/`, before two nodes, with TLS and unmodified clients."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets
from tests.support.certificates import self_signed
from tests.support.client import StompClient, WebSocketPipe
from tests.support.deadline import DEADLINE
from tests.support.nginx import around
from tests.support.node import talk
from tests.support.server import Server, free_port
from tests.support.services import require
from tests.support.valkey import Valkey

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PER_ADDRESS = 4
SETTINGS = f"""
trusted-proxies = ["127.0.0.1"]
[limits]
sessions-per-address = {PER_ADDRESS}
"""
PROGRAMS = {"nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy"}


class Proxy:
    """One proxy before the nodes; its clients speak TLS to `port`."""

    def __init__(self, folder: Path, nodes: list[Server]) -> None:
        self.port = free_port()
        self.nodes = nodes
        self.folder = folder
        self.certificate, self.key = self_signed(folder)
        self.trust = ssl.create_default_context(cafile=self.certificate)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str]) -> None:
        """Start it, and return once it takes connections."""
        environment = {**os.environ, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        with (self.folder / "proxy.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)
        end = time.monotonic() + DEADLINE
        while not self._answers():
            assert self._process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.get("/healthz") == "ok\n"
        except OSError:
            return False

    def output(self) -> str:
        """What it said."""
        return (self.folder / "proxy.log").read_text(encoding="utf-8")

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(DEADLINE)

    def get(self, path: str) -> str:
        """The body of an HTTP answer."""
        url = f"https://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=DEADLINE, context=self.trust) as answer:
            return str(answer.read().decode())

    async def open(self, *, source: str = "127.0.0.1", headers: dict[str, str] | None = None) -> WebSocketPipe:
        """A WebSocket, from an address of this machine."""
        return WebSocketPipe(
            await websockets.connect(
                f"wss://127.0.0.1:{self.port}/ws",
                ssl=self.trust,
                additional_headers=headers,
                local_addr=(source, 0),
                compression=None,
            )
        )

    async def connect(self, login: str) -> StompClient:
        """A client that is authenticated."""
        return await StompClient(await self.open()).introduced(login)


def nodes_in(text: str, nodes: list[Server], form: str) -> str:
    """A shipped configuration with the test's two nodes for its three."""
    for number, node in enumerate(nodes, 1):
        text = text.replace(f"10.0.0.1{number}:8080", f"127.0.0.1:{node.port}")
    return re.sub(form.format("10\\.0\\.0\\.13:8080"), "", text)


def nginx(proxy: Proxy) -> list[str]:
    """How it is started."""
    text = nodes_in((DEPLOY / "nginx/postroom.conf").read_text(encoding="utf-8"), proxy.nodes, r" *server {}.*;\n")
    text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    text = text.replace("listen 443", f"listen 127.0.0.1:{proxy.port}")
    text = re.sub(r"ssl_certificate /\S+;", f"ssl_certificate {proxy.certificate};", text)
    text = re.sub(r"ssl_certificate_key /\S+;", f"ssl_certificate_key {proxy.key};", text)
    return around(proxy.folder, text)


def haproxy(proxy: Proxy) -> list[str]:
    """How it is started."""
    text = nodes_in((DEPLOY / "haproxy/haproxy.cfg").read_text(encoding="utf-8"), proxy.nodes, r" *server node-3 {}\n")
    both = proxy.folder / "both.pem"
    both.write_bytes(proxy.certificate.read_bytes() + proxy.key.read_bytes())
    text = text.replace("bind :80\n", f"bind 127.0.0.1:{free_port()}\n").replace("maxconn 50000", "maxconn 500")
    text = text.replace("bind :443", f"bind 127.0.0.1:{proxy.port}")
    text = text.replace("/etc/haproxy/chat.example.pem", str(both))
    (proxy.folder / "haproxy.cfg").write_text(text, encoding="utf-8")
    return [program("haproxy"), "-db", "-f", str(proxy.folder / "haproxy.cfg")]


def caddy(proxy: Proxy) -> list[str]:
    """How it is started."""
    text = nodes_in((DEPLOY / "caddy/Caddyfile").read_text(encoding="utf-8"), proxy.nodes, r" {}")
    site = f"https://127.0.0.1:{proxy.port} {{\n\ttls {proxy.certificate} {proxy.key}\n"
    text = "{\n\tadmin off\n\tauto_https off\n}\n" + text.replace("chat.example {\n", site)
    (proxy.folder / "Caddyfile").write_text(text, encoding="utf-8")
    return [program("caddy"), "run", "--config", str(proxy.folder / "Caddyfile"), "--adapter", "caddyfile"]


def demand(name: str) -> None:
    """Skip the test where this proxy is not installed."""
    require(name, found=Path(program(name)).exists(), install=f"apt-get install {PROGRAMS[name]}")


def program(name: str) -> str:
    """Where it is; Debian keeps servers out of the way of users."""
    return shutil.which(name) or f"/usr/sbin/{name}"


FORMS: dict[str, Callable[[Proxy], list[str]]] = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


@pytest.fixture(scope="module")
def nodes(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two nodes that believe the proxy."""
    started: list[Server] = []
    for number in (1, 2):
        folder = tmp_path_factory.mktemp(f"node-{number}")
        store = f"{valkey.url}?prefix=proxies"
        started.append(Server(folder, config=SETTINGS, store=store, options=("--node-id", f"n{number}")))
    try:
        for node in started:
            node.start()
        yield started
    finally:
        for node in started:
            node.close()


@pytest.fixture(scope="module", params=FORMS)
def proxy(
    request: pytest.FixtureRequest, nodes: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Each proxy in turn."""
    name = request.param
    demand(name)
    made = Proxy(tmp_path_factory.mktemp(name), nodes)
    try:
        made.start(FORMS[name](made))
        yield made
    finally:
        made.close()


async def test_two_users_on_two_nodes_meet(proxy: Proxy) -> None:
    async with await proxy.connect("ann") as ann, await proxy.connect("ben") as ben:
        assert {ann.connected.headers["server"], ben.connected.headers["server"]} == {"postroom/n1", "postroom/n2"}
        await ben.subscribe("/user/queue/x")
        body = "through " * 20_000
        await ann.send("/user/ben/queue/x", body)
        assert (await ben.message()).text == body
        await ben.confirmed()


@pytest.mark.parametrize("socket", ["ws", "sockjs-1.6", "sockjs-1.6:xhr-streaming", "sockjs-1.6:xhr-polling"])
def test_clients_in_node_talk_over_tls(proxy: Proxy, socket: str) -> None:
    talk(proxy, "stompjs-7", socket, nodes=2, authority=proxy.certificate)


async def test_a_client_is_counted_by_its_own_address(proxy: Proxy) -> None:
    pipes: list[WebSocketPipe] = []
    try:
        while len(pipes) < PER_ADDRESS * len(proxy.nodes):
            pipes.append(await proxy.open(source="127.0.0.2"))
        for headers in ({}, {"X-Forwarded-For": "198.51.100.9"}):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await proxy.open(source="127.0.0.2", headers=headers)
            assert refused.value.response.status_code == 429
        pipes.append(await proxy.open(source="127.0.0.3"))
    finally:
        for pipe in pipes:
            await pipe.close()


async def test_what_is_for_the_inside_stays_there(proxy: Proxy) -> None:
    assert json.loads(await asyncio.to_thread(proxy.get, "/chat-websocket/info"))["websocket"] is True
    for path in ("/metrics", "/readyz"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(proxy.get, path)
        assert refused.value.code == 404
        refused.value.close()


async def test_a_node_that_is_down_is_passed_over(proxy: Proxy, nodes: list[Server]) -> None:
    await asyncio.to_thread(nodes[1].kill)
    try:
        for number in range(6):
            async with await proxy.connect(f"u{number}") as client:
                assert client.connected.headers["server"] == "postroom/n1"
            assert await asyncio.to_thread(proxy.get, "/healthz") == "ok\n"
    finally:
        await asyncio.to_thread(nodes[1].start)
    async with asyncio.timeout(2 * DEADLINE):
        while not await both_serve(proxy):
            pass


async def both_serve(proxy: Proxy) -> bool:
    """Whether two connections go to two nodes: the proxy has noticed that all are back."""
    async with await proxy.connect("one") as one, await proxy.connect("two") as two:
        return one.connected.headers["server"] != two.connected.headers["server"]


async def test_nginx_before_a_unix_socket(tmp_path: Path) -> None:
    demand("nginx")
    path = tmp_path / "postroom.sock"

    class UnixServer(Server):
        def healthy(self) -> bool:
            with socket.socket(socket.AF_UNIX) as trial:
                return trial.connect_ex(str(path)) == 0

    settings = 'trusted-proxies = ["unix"]\n[limits]\nsessions-per-address = 1\n'
    server = UnixServer(tmp_path, config=settings, options=("--unix-socket", str(path)))
    proxy = Proxy(tmp_path, [server])
    command = nginx(proxy)
    site = tmp_path / "site.conf"
    text = site.read_text(encoding="utf-8")
    text = re.sub(r" *server 10\.0\.0\.12.*\n", "", text)
    site.write_text(text.replace(f"server 127.0.0.1:{server.port}", f"server unix:{path}"), encoding="utf-8")
    try:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(proxy.start, command)
        async with await proxy.connect("ann") as ann:
            await ann.subscribe("/user/queue/x")
            await ann.send("/user/ann/queue/x", "through a file")
            assert (await ann.message()).text == "through a file"
            with pytest.raises(websockets.InvalidStatus):
                await proxy.open()
            await (await proxy.open(source="127.0.0.2")).close()
    finally:
        proxy.close()
        server.close()
