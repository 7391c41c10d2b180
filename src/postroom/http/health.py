"""`/healthz`, `/readyz` and `/metrics`."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from postroom.http.siblings import Siblings, Status
from postroom.metrics import Metrics

_SILENT = "it does not answer"

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
    metrics: Metrics,
    gauges: Callable[[], Mapping[str, float]],
    reasons: Callable[[], Sequence[str]],
    siblings: Siblings | None = None,
) -> list[BaseRoute]:
    """The routes. `reasons` says why the node should get no new clients; an empty answer means it is ready.

    One of several workers answers for all of them: they are ready while one is, and each has its metrics.
    """

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if siblings is None:
            found = [*reasons()]
            return JSONResponse({"ready": not found, "reasons": found}, 503 if found else 200)
        everyone = await siblings.all(status_of(metrics, gauges, reasons))
        told = {name: [_SILENT] if one is None else [*one.reasons] for name, one in everyone.items()}
        ready = not all(told.values())
        return JSONResponse({"ready": ready, "workers": told}, 200 if ready else 503)

    async def show(request: Request) -> Response:
        own = status_of(metrics, gauges, reasons)
        everyone = await siblings.all(own) if siblings is not None else {"": own}
        registry = CollectorRegistry()
        registry.register(_Collector(everyone))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show)]


def status_of(
    metrics: Metrics, gauges: Callable[[], Mapping[str, float]], reasons: Callable[[], Sequence[str]]
) -> Status:
    """How a node is now."""
    return Status(
        [*reasons()],
        {name: getattr(metrics, name) for name in _HELP},
        {name: float(value) for name, value in gauges().items()},
    )


class _Collector(Collector):
    """What nodes said, by the name of the worker; a node that is none has no name."""

    def __init__(self, everyone: Mapping[str, Status | None]) -> None:
        self._said = {name: said for name, said in everyone.items() if said is not None}
        self._labels = [] if "" in everyone else ["worker"]
        self._up = {} if "" in everyone else {name: float(said is not None) for name, said in everyone.items()}

    def collect(self) -> Iterable[Metric]:
        for name, text in _HELP.items():
            counter = CounterMetricFamily(f"postroom_{name}", text, labels=self._labels)
            self._add(counter, {worker: said.counters[name] for worker, said in self._said.items()})
            yield counter
        for name in dict.fromkeys(name for said in self._said.values() for name in said.gauges):
            gauge = GaugeMetricFamily(f"postroom_{name}", name.replace("_", " ").capitalize(), labels=self._labels)
            self._add(gauge, {who: said.gauges[name] for who, said in self._said.items() if name in said.gauges})
            yield gauge
        if self._up:
            up = GaugeMetricFamily("postroom_worker_up", "Whether the worker answers", labels=self._labels)
            self._add(up, self._up)
            yield up

    def _add(self, family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> None:
        for worker, value in values.items():
            family.add_metric([worker] if worker else [], value)
