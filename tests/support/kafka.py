"""A real Kafka, one KRaft node in one small JVM."""

import itertools
import shutil
import subprocess
from pathlib import Path

from tests.support.certificates import self_signed
from tests.support.deadline import DEADLINE
from tests.support.engines import Broker
from tests.support.kafka_jars import jars
from tests.support.kafka_proxy import RefusingProxy
from tests.support.services import require
from tests.support.valkey import quiet_port

_WAYS = 2
_USERS = ("ann", "ben")


class Kafka(Broker):
    """A server tells its clients where to come back to: so each way through a proxy has a listener of its own.

    `sasl_port` wants a user and `s3cr3t`; `tls_port` speaks TLS with `certificate`, and takes it as a client's name;
    `safe_port` does both, and ends what came by SCRAM-SHA-512 after two seconds. `ann` and who has no name may do all,
    `ben` only what an operator allows him. `beside`: the first server of its cluster.
    """

    name = "kafka"
    keeps = True
    starts_within = 6 * DEADLINE

    def __init__(self, folder: Path, *, beside: "Kafka | None" = None) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._leads = beside is None
        self._controller: int = quiet_port() if beside is None else beside._controller
        self.sasl_port, self.tls_port, self.safe_port = quiet_port(), quiet_port(), quiet_port()
        self.ways = [(quiet_port(), quiet_port()) for _ in range(_WAYS)]
        self.certificate, self.key = self_signed(folder)

    def url_at(self, port: int) -> str:
        """See `Broker.url_at`."""
        return f"kafka://127.0.0.1:{port}"

    def proxy(self, number: int, *, seed: int = 1) -> RefusingProxy:
        """See `Broker.proxy`."""
        inner, outer = self.ways[number]
        return RefusingProxy(("127.0.0.1", inner), at=("127.0.0.1", outer), seed=seed + number)

    def command(self) -> list[str]:
        """See `Broker.command`."""
        java = shutil.which("java")
        require("java", install="apt-get install default-jre-headless")
        assert java is not None
        small = ["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]
        return [java, *small, "kafka.Kafka", str(self.folder / "server.properties")]

    def start(self) -> None:
        """See `Broker.start`."""
        command = self.command()
        settings = self.folder / "server.properties"
        if not settings.exists():
            settings.write_text(self._settings(), encoding="utf-8")
            made = [
                *command[:-2],
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "MkU3OEVBNTcwNTJENDM2Qk",
                "-c",
                str(settings),
            ]
            for user, mechanism in itertools.product(_USERS, ("SCRAM-SHA-256", "SCRAM-SHA-512")):
                made += ["--add-scram", f"{mechanism}=[name={user},password=s3cr3t]"]
            done = subprocess.run(made, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        super().start()

    def _settings(self) -> str:
        listeners = {
            "PLAIN": (self.port, self.port),
            "SASL": (self.sasl_port, self.sasl_port),
            "TLS": (self.tls_port, self.tls_port),
            "SAFE": (self.safe_port, self.safe_port),
            **{f"WAY{number}": way for number, way in enumerate(self.ways)},
        }
        inner = ",".join(f"{name}://127.0.0.1:{port}" for name, (port, _) in listeners.items())
        outer = ",".join(f"{name}://127.0.0.1:{port}" for name, (_, port) in listeners.items())
        protocols = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "SAFE": "SASL_SSL"}
        kinds = ",".join(f"{name}:{protocols.get(name, 'PLAINTEXT')}" for name in [*listeners, "CONTROLLER"])
        store = self.folder / "store.pem"
        store.write_text(self.key.read_text() + self.certificate.read_text(), encoding="utf-8")
        module = "org.apache.kafka.common.security"
        users = " ".join(f'user_{user}="s3cr3t"' for user in _USERS)
        logins = "\n".join(
            f"""listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.{name}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required username="x" password="x" {users};
listener.name.{name}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"""
            for name in ("sasl", "safe")
        )
        controller = f",CONTROLLER://127.0.0.1:{self._controller}" if self._leads else ""
        return f"""
process.roles={"broker,controller" if self._leads else "broker"}
node.id={1 if self._leads else 2}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.voters=1@127.0.0.1:{self._controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners={inner}{controller}
advertised.listeners={outer}
listener.security.protocol.map={kinds}
{logins}
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={store}
listener.name.tls.ssl.client.auth=requested
listener.name.tls.ssl.truststore.type=PEM
listener.name.tls.ssl.truststore.location={self.certificate}
listener.name.safe.ssl.keystore.type=PEM
listener.name.safe.ssl.keystore.location={store}
listener.name.safe.scram-sha-512.connections.max.reauth.ms=2000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:ann
log.dirs={self.folder}/data
num.network.threads=2
num.io.threads=2
auto.create.topics.enable=false
offsets.topic.replication.factor=1
"""
