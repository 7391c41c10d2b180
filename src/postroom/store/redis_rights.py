"""Whether the server lets this user do what the store does: found out at the start, not with the first message."""

import itertools
from typing import Final

from postroom.errors import StoreUnavailable
from postroom.store.redis_servers import Script, Server, Servers

_RIGHTS: Final = Script("rights", "allow-oom")


async def check_rights(servers: Servers, prefix: str, *, waits: bool) -> None:
    """Raises StoreUnavailable, with what the user may not. `waits`: appends wait for replicas."""
    for server in servers.all:
        await server.ask(b"SCAN", b"0", b"COUNT", b"1")
        if waits:
            await server.ask(b"WAIT", b"0", b"1")
        missing = await server.ask(b"0", _base(servers, server, prefix), script=_RIGHTS)
        if missing:
            commands, said = [command.decode() for command, _ in missing], missing[0][1].decode()
            raise StoreUnavailable(
                f"{server.name}: the user may not do {', '.join(commands)} with keys {prefix}:* ({said})"
            )


def _base(servers: Servers, server: Server, prefix: str) -> bytes:
    """What keys begin with that are this server's."""
    tags = (b"c:%d" % n for n in itertools.count())
    return b"%s:{%s}" % (prefix.encode(), next(tag for tag in tags if servers.owner(tag) is server))
