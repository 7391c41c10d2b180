"""What a node counts. Plain integers here; `http/health.py` shows them to Prometheus."""


class Metrics:
    """Counters of one node, from its start. Each attribute only grows; gauges are read from their owners."""

    __slots__ = (
        "appended",
        "authentication_failures",
        "backplane_bytes_received",
        "backplane_canaries_missed",
        "backplane_dropped",
        "backplane_failures",
        "backplane_holes",
        "backplane_interruptions",
        "backplane_items_published",
        "backplane_items_received",
        "backplane_published",
        "backplane_received",
        "backplane_unreadable",
        "backplane_wasted",
        "confirmed",
        "connections_accepted",
        "connections_refused",
        "delivered",
        "duplicates",
        "protocol_violations",
        "received",
        "reconciliations",
        "redelivered",
        "refused",
        "routes_missed",
        "skipped",
        "slow_consumers_cut",
        "store_failures",
    )

    def __init__(self) -> None:
        self.connections_accepted = 0
        self.connections_refused = 0
        self.authentication_failures = 0
        self.received = 0
        self.delivered = 0
        self.appended = 0
        self.duplicates = 0
        self.confirmed = 0
        self.redelivered = 0
        self.skipped = 0
        self.refused = 0
        self.protocol_violations = 0
        self.slow_consumers_cut = 0
        self.store_failures = 0
        self.backplane_bytes_received = 0
        self.backplane_canaries_missed = 0
        self.backplane_dropped = 0
        self.backplane_failures = 0
        self.backplane_holes = 0
        self.backplane_interruptions = 0
        self.backplane_items_published = 0
        self.backplane_items_received = 0
        self.backplane_published = 0
        self.backplane_received = 0
        self.backplane_unreadable = 0
        self.backplane_wasted = 0
        self.reconciliations = 0
        self.routes_missed = 0
