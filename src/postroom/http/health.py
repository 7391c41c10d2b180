"""`/healthz`, `/readyz` and `/metrics`."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from postroom.metrics import Metrics

_HELP = {
    "appended": "Messages stored in logs",
    "authentication_failures": "Credentials that were not believed",
    "backplane_bytes_received": "Bytes that the backplane brought",
    "backplane_canaries_missed": "Heart-beats of its own that this node did not hear come back",
    "backplane_dropped": "Items for other nodes dropped because the backplane was too slow",
    "backplane_failures": "Publishes to the backplane that failed",
    "backplane_holes": "Holes in other nodes' counters: something published to this node never came",
    "backplane_interruptions": "Re-connections of the backplane",
    "backplane_items_published": "Messages published to other nodes",
    "backplane_items_received": "Messages that other nodes published to this one",
    "backplane_published": "Publishes to the backplane",
    "backplane_received": "Payloads that the backplane brought",
    "backplane_unreadable": "Payloads that could not be read",
    "backplane_wasted": "Messages of other nodes that nobody here follows",
    "confirmed": "Movements of cursors stored",
    "connections_accepted": "Connections that were let in",
    "connections_refused": "Handshakes that were refused",
    "delivered": "Transient deliveries to local subscribers",
    "duplicates": "Appends whose idempotency key was seen before",
    "protocol_violations": "Connections that broke the STOMP protocol",
    "received": "SEND frames received",
    "reconciliations": "Comparisons of logs after something was missed",
    "redelivered": "Deliveries marked as redelivered",
    "refused": "Requests refused without closing the session",
    "routes_missed": "Transient messages sent on because their user had moved",
    "skipped": "Messages dropped by retention before they were delivered, as told to receivers",
    "slow_consumers_cut": "Clients cut because they did not read",
    "store_failures": "Calls to the store that failed",
}


def health_routes(
    metrics: Metrics, gauges: Callable[[], Mapping[str, float]], reasons: Callable[[], Sequence[str]]
) -> list[BaseRoute]:
    """The routes. `reasons` says why the node should get no new clients; an empty answer means it is ready."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(metrics, gauges))

    def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(request: Request) -> Response:
        found = [*reasons()]
        return JSONResponse({"ready": not found, "reasons": found}, 503 if found else 200)

    def show(request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [
        Route("/healthz", _async(healthz)),
        Route("/readyz", _async(readyz)),
        Route("/metrics", _async(show)),
    ]


def _async(answer: Callable[[Request], Response]) -> Callable[[Request], object]:
    # Starlette runs plain functions in threads, away from the loop that owns what they read.
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


class _NodeCollector(Collector):
    """Reads a node's counters when it is asked."""

    def __init__(self, metrics: Metrics, gauges: Callable[[], Mapping[str, float]]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        for name, text in _HELP.items():
            yield CounterMetricFamily(f"postroom_{name}", text, value=getattr(self._metrics, name))
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"postroom_{name}", name.replace("_", " ").capitalize(), value=value)
