"""What ships in `deploy/`: nginx takes the configurations, traffic goes through them, and the rest hangs together."""

import configparser
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
import yaml
from tests.support.certificates import self_signed
from tests.support.client import StompClient, WebSocketPipe
from tests.support.deadline import DEADLINE
from tests.support.nginx import PROGRAM, around
from tests.support.server import Server, free_port
from tests.support.services import require

from postroom.backplane.base import open_backplane
from postroom.config import load
from postroom.store import open_store

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def site(name: str) -> str:
    """A shipped site, its ports such that anybody may listen at them."""
    require("nginx", found=Path(PROGRAM).exists(), install="apt-get install nginx-light")
    text = (DEPLOY / "nginx" / name).read_text(encoding="utf-8")
    text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"listen (\d+)", lambda found: f"listen 127.0.0.1:{free_port()}", text)


def test_nginx_takes_the_site_with_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    text = re.sub(r"ssl_certificate /\S+;", f"ssl_certificate {certificate};", site("postroom.conf"))
    text = re.sub(r"ssl_certificate_key /\S+;", f"ssl_certificate_key {key};", text)
    done = subprocess.run([*around(tmp_path, text), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Iterator[str]:
    """The authority of the site of compose.yaml, its three nodes one server."""
    server = Server(tmp_path)
    server.start()
    text = site("compose.conf").replace("8080", str(server.port))
    text = re.sub(r"server node-\d:", "server 127.0.0.1:", text)
    nginx = subprocess.Popen(around(tmp_path, text), stderr=subprocess.DEVNULL)
    found = re.search(r"listen (127\.0\.0\.1:\d+)", text)
    assert found
    try:
        for _ in range(int(DEADLINE * 20)):
            try:
                httpx.get(f"http://{found[1]}/healthz")
                break
            except httpx.TransportError:
                assert nginx.poll() is None
        yield found[1]
    finally:
        nginx.terminate()
        nginx.wait(DEADLINE)
        server.close()


async def test_traffic_goes_through_the_site_of_compose(behind_nginx: str) -> None:
    async with websockets.connect(f"ws://{behind_nginx}/ws", origin=f"http://{behind_nginx}") as pipe:  # type: ignore[arg-type]
        client = await StompClient(WebSocketPipe(pipe)).introduced("ann")
        await client.subscribe("/user/queue/x")
        await client.send("/user/ann/queue/x", "through nginx")
        assert (await client.message()).text == "through nginx"
    async with httpx.AsyncClient(base_url=f"http://{behind_nginx}") as http:
        assert (await http.get("/chat-websocket/info")).json()["websocket"] is True
        for inside in ("/metrics", "/readyz"):
            assert (await http.get(inside)).status_code == 404


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_names_what_there_is() -> None:
    services = compose()["services"]
    upstream = set(re.findall(r"server (node-\d):8080", (DEPLOY / "nginx/compose.conf").read_text(encoding="utf-8")))
    nodes = {name for name in services if name.startswith("node-")}
    assert nodes == upstream == set(services["nginx"]["depends_on"])
    for name in nodes:
        assert services[name]["environment"]["POSTROOM_NODE_ID"] == name
        assert (DEPLOY / services[name]["build"]["context"] / services[name]["build"]["dockerfile"]).resolve().is_file()
    for volume in services["nginx"]["volumes"]:
        assert (DEPLOY / volume.partition(":")[0]).is_file()
    assert "--appendonly yes" in services["valkey"]["command"]
    assert "noeviction" in services["valkey"]["command"]


def test_the_environment_of_compose_is_one_that_a_node_takes() -> None:
    told = compose()["services"]["node-1"]["environment"]
    environment = {name: re.sub(r"\$\{\w+:\?[^}]*\}", "x" * 32, value) for name, value in told.items()}
    settings = load(None, environment, {})
    assert settings.node_id == "node-1"
    assert settings.auth.cookie is not None
    assert settings.store == f"redis://:{'x' * 32}@valkey:6379"


@pytest.mark.parametrize("added", ["kafka", "nats", "postgres", "rabbitmq"])
def test_compose_with_another_engine_adds_to_what_there_is(added: str) -> None:
    beside = yaml.safe_load((DEPLOY / f"compose.{added}.yaml").read_text(encoding="utf-8"))
    services = compose()["services"]
    assert {*beside["services"]} - {*services} == {added}
    for name in (each for each in services if each.startswith("node-")):
        assert [*beside["services"][name]["depends_on"]] == [added]
        told = services[name]["environment"] | beside["services"][name]["environment"]
        environment = {key: re.sub(r"\$\{\w+(:\?[^}]*)?\}", "x" * 32, value) for key, value in told.items()}
        settings = load(None, environment, {})
        assert settings.node_id == name
        open_store(settings.store)
        open_backplane(settings.backplane)


def test_the_image_is_made_of_files_and_extras_that_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    for source in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert source in text


def test_the_unit_is_one() -> None:
    unit = DEPLOY / "systemd/postroom@.service"
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(unit)
    assert parsed["Service"]["ExecStart"].split()[1:3] == ["serve", "--config"]
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        said = [line for line in done.stderr.splitlines() if "postroom@" in line and "is not executable" not in line]
        assert said == []
