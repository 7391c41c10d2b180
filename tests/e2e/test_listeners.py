"""HTTPS and Unix sockets, as clients and operators see them."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
from tests.support.certificates import self_signed
from tests.support.client import StompClient, WebSocketPipe
from tests.support.deadline import DEADLINE
from tests.support.frames import decode, encode
from tests.support.node import talk
from tests.support.server import Server

pytestmark = pytest.mark.e2e


class UnixServer(Server):
    """A server at a Unix socket."""

    def __init__(self, folder: Path, *, config: str = "") -> None:
        self.path = folder / "http.sock"
        super().__init__(folder, config=config, options=("--unix-socket", str(self.path)))

    def healthy(self) -> bool:
        """Whether it answers."""
        return self.ask("/healthz").endswith("\r\n\r\nok\n")

    def ask(self, path: str) -> str:
        """The answer to a GET; empty where nobody listens."""
        with socket.socket(socket.AF_UNIX) as pipe:
            try:
                pipe.connect(str(self.path))
            except OSError:
                return ""
            pipe.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            with pipe.makefile("rb") as answer:
                return answer.read().decode()


class TlsServer(Server):
    """A server whose only port speaks TLS."""

    def __init__(self, folder: Path, certificate: Path, key: Path) -> None:
        self.trust = ssl.create_default_context(cafile=certificate)
        super().__init__(folder, config=f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')

    def get(self, path: str) -> str:
        """The body of an HTTPS answer."""
        with urllib.request.urlopen(f"https://127.0.0.1:{self.port}{path}", context=self.trust) as answer:
            return str(answer.read().decode())


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[UnixServer]:
    trusting = '[auth.header]\nname = "X-User"\ntrusted = ["unix"]\n'
    server = UnixServer(tmp_path, config=trusting)
    server.start()
    yield server
    server.close()


async def test_websockets_over_tls(tmp_path: Path) -> None:
    server = TlsServer(tmp_path, *self_signed(tmp_path))
    await asyncio.to_thread(server.start)
    try:
        url = f"wss://127.0.0.1:{server.port}/ws"
        async with websockets.connect(url, ssl=server.trust, compression=None) as pipe:
            client = await StompClient(WebSocketPipe(pipe)).introduced("ann")
            await client.subscribe("/user/queue/x")
            body = "x" * 200_000
            await client.send("/user/ann/queue/x", body)
            assert (await client.message()).text == body
            await client.confirmed()
    finally:
        server.close()


@pytest.mark.parametrize("way", ["ws", "sockjs-1.6"])
def test_clients_in_node_talk_over_tls(tmp_path: Path, way: str) -> None:
    certificate, key = self_signed(tmp_path)
    server = TlsServer(tmp_path, certificate, key)
    server.start()
    try:
        talk(server, "stompjs-7", way, authority=certificate)
    finally:
        server.close()


async def test_a_unix_socket_in_place_of_a_port(unix: UnixServer) -> None:
    async with websockets.unix_connect(
        str(unix.path), "ws://x/ws", additional_headers={"X-User": "ann"}, compression=None
    ) as pipe:
        await pipe.send(encode("CONNECT", {"accept-version": "1.2", "host": "x"}).decode())
        (connected,) = decode(str(await pipe.recv()).encode())
    # The proxy's header is believed: it came over the socket.
    assert connected.headers["user-name"] == "ann"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", unix.port)


def test_a_socket_that_a_killed_server_left_is_taken_over(unix: UnixServer) -> None:
    unix.kill()
    assert unix.path.is_socket()
    unix.start()


def serve(folder: Path, *options: str) -> str:
    """What the server says before it gives up."""
    done = subprocess.run(
        [sys.executable, "-m", "postroom", "serve", "--dev", "--port", "0", "--store", "memory:", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
    )
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_socket_in_use_is_said_in_one_line(unix: UnixServer) -> None:
    said = serve(unix.folder, "--unix-socket", str(unix.path))
    assert said == f"postroom: cannot listen on {unix.path}: somebody else does"
    assert unix.healthy()


def test_a_file_in_the_way_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    said = serve(tmp_path, "--unix-socket", "taken")
    assert said == "postroom: cannot listen on taken: there is a file that is no socket"
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = serve(tmp_path, "--stomp-port", str(port))
    assert said.startswith(f"postroom: cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("certificate.pem", "none.pem", "3: tls: key none.pem is no file"),
        ("none.pem", "key.pem", "2: tls: certificate none.pem is no file"),
        ("certificate.pem", "certificate.pem", "2: tls: certificate.pem and certificate.pem are no certificate with"),
    ],
)
def test_wrong_tls_files_are_said_in_one_line(tmp_path: Path, certificate: str, key: str, said: str) -> None:
    self_signed(tmp_path)
    (tmp_path / "postroom.toml").write_text(
        f"[tls]\ncertificate = {json.dumps(certificate)}\nkey = {json.dumps(key)}\n"
    )
    assert serve(tmp_path).startswith(f"postroom: postroom.toml:{said}")
