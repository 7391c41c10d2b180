"""Where users were found a moment ago, for transient messages."""

from collections.abc import Sequence

from msgspec import Struct

from postroom.identity import UserName

_MAX_ROUTES = 100_000


class _Route(Struct, frozen=True, gc=False):
    nodes: Sequence[str]
    until: float


class Routes:
    """The directory's answers of the last `seconds`. "Nowhere" is not remembered: the user may come any moment."""

    __slots__ = ("_routes", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._routes: dict[UserName, _Route] = {}

    def get(self, user: UserName, now: float) -> Sequence[str] | None:
        """The user's nodes; None: ask the directory."""
        route = self._routes.get(user)
        if route is None:
            return None
        if route.until <= now:
            del self._routes[user]
            return None
        return route.nodes

    def put(self, user: UserName, nodes: Sequence[str], now: float) -> None:
        """The directory answered at `now`."""
        if nodes and self._seconds:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[user] = _Route(nodes, now + self._seconds)

    def drop(self, user: UserName) -> None:
        """The user was not where it should be."""
        self._routes.pop(user, None)

    def clear(self) -> None:
        """A node is gone."""
        self._routes.clear()
