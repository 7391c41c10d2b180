"""Whether the server lets this user do what the store does: found out at the start, not with the first message."""

import itertools
from collections.abc import Sequence
from typing import Final

from postroom.errors import StoreUnavailable
from postroom.findings import Finding
from postroom.store.redis_servers import Script, Server, Servers

_RIGHTS: Final = Script("rights", "allow-oom")
_REFUSALS: Final = ("permission", "The user executing the script", "ACL failure")

_ADVICE: Final = "run-a-cluster.md has the rights that a user needs"


async def lacking(servers: Servers, prefix: str, *, waits: bool) -> Sequence[Finding]:
    """What the user may not do. `waits`: appends wait for replicas. Raises StoreUnavailable."""
    found: list[Finding] = []
    for server in servers.all:
        try:
            found += await _lacking(server, _base(servers, server, prefix), prefix, waits)
        except StoreUnavailable as error:
            if not any(part in str(error) for part in _REFUSALS):
                raise
            found.append(Finding(f"{error}: {_ADVICE}"))
    return found


async def _lacking(server: Server, base: bytes, prefix: str, waits: bool) -> Sequence[Finding]:
    await server.ask(b"SCAN", b"0", b"COUNT", b"1")
    if waits:
        await server.ask(b"WAIT", b"0", b"1")
    missing = await server.ask(b"0", base, script=_RIGHTS)
    if not missing:
        return []
    commands, said = [command.decode() for command, _ in missing], missing[0][1].decode()
    return [
        Finding(f"{server.name}: the user may not do {', '.join(commands)} with keys {prefix}:* ({said}): {_ADVICE}")
    ]


def _base(servers: Servers, server: Server, prefix: str) -> bytes:
    """What keys begin with that are this server's."""
    tags = (b"c:%d" % n for n in itertools.count())
    return b"%s:{%s}" % (prefix.encode(), next(tag for tag in tags if servers.owner(tag) is server))
