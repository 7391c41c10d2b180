"""The conformance kit: one test class a contract. An engine's own test file is a fixture and a few lines.

```
class TestMyStore(LogStoreContract, CursorStoreContract, DurableLogStoreContract, DurableCursorStoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda clock: MyStore(f"my:///{tmp_path}/data", clock=clock)
```
"""

import pytest

from postroom.errors import MissingExtra

try:
    import pytest_asyncio  # noqa: F401  (the contracts' fixtures are made with it)
except ModuleNotFoundError as error:  # pragma: no cover
    raise MissingExtra("postroom.testing.contracts", "testing") from error

# Before they are imported, so that a failed assertion says what it compared.
pytest.register_assert_rewrite(
    "postroom.testing.contracts.backplane",
    "postroom.testing.contracts.log_store",
    "postroom.testing.contracts.cursor_store",
    "postroom.testing.contracts.directory_store",
    "postroom.testing.contracts.transactions",
    "postroom.testing.contracts.store_faults",
    "postroom.testing.contracts.transport",
)
