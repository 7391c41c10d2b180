"""The cluster's cores: leases, counters, routes. No I/O, no clock, no task."""
