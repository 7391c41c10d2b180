"""The jars of a Kafka server, from Maven Central into a cache of this machine; once for all trees and runs."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.support.services import require

VERSION: Final = "4.1.0"

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>postroom</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def jars() -> Path:
    """The folder with the server's jars."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "postroom" / f"kafka-{VERSION}"
    if folder.is_dir():
        return folder
    require("mvn", install="apt-get install maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        (Path(place) / "pom.xml").write_text(_POM, encoding="utf-8")
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"Kafka's jars cannot be had:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        if not folder.is_dir():  # or somebody else was quicker
            shutil.move(Path(place) / "lib", folder)
    return folder
