"""What tests need beside Python: skipped on a laptop, an error where all must be there (CI)."""

import os
import shutil

import pytest

_INSTALL = {
    "node": "apt-get install nodejs (or https://nodejs.org)",
    "npm": "apt-get install npm",
}


def require(service: str, *, found: bool | None = None, install: str = "") -> None:
    """Skip this test where `service` is missing, with the command that installs it.

    Fails instead where POSTROOM_REQUIRE_SERVICES=1. `found` None looks for a program of that name.
    """
    if found if found is not None else shutil.which(service):
        return
    reason = f"{service} is missing: {install or _INSTALL.get(service, f'install {service}')}"
    if os.environ.get("POSTROOM_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
