"""Metrics that must add up: what came in is what went out, and what is under way."""

import re

# Counted as handshakes that failed, but the connection was reset before it counted as one.
AT_THE_DOOR = ("address_denied", "address_connections", "address_handshakes", "address_rate",
               "network_connections", "network_handshakes", "network_rate", "overloaded")  # fmt: skip


def read(text):
    """[(name, labels, value)]"""
    series = []
    for line in text.splitlines():
        if match := re.fullmatch(r'(\w+)(?:\{(.*)\})? (\S+)', line):
            name, labels, value = match.groups()
            series.append((name, dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")), float(value)))
    return series


def total(metrics, name, **wanted):
    """The sum of all series of this name, with these labels: a value, or several that will do."""
    def fits(labels):
        return all(labels.get(key) in (value if isinstance(value, tuple) else (value,)) for key, value in wanted.items())

    return sum(value for known, labels, value in metrics if known == name and fits(labels))


def is_at_rest(metrics):
    return total(metrics, "portcullis_connections") == 0 and total(metrics, "portcullis_tls_handshakes_in_flight") == 0


def balances(metrics, asked_of_origin):
    """{what must be equal: (one side, the other)}"""
    def of(name, **labels):
        return total(metrics, f"portcullis_{name}", **labels)

    handshakes = of("tls_handshakes_total")
    succeeded = of("tls_handshakes_total", result="ok")
    failed, turned_away = of("tls_handshake_failures_total"), of("tls_handshake_failures_total", reason=AT_THE_DOOR)
    connections = of("requests_per_connection_count")
    requests = of("requests_total")
    return {
        "handshakes begun = ended + under way":
            (of("tls_handshakes_started_total"), handshakes + of("tls_handshakes_in_flight")),
        "handshakes that failed = their reasons": (handshakes - succeeded, failed),
        "connections = not let in + ended + open":
            (of("connections_total"), failed - turned_away + connections + of("connections")),
        "handshakes that succeeded = connections ended + open": (succeeded, connections + of("connections")),
        "requests on connections that ended = answered": (of("requests_per_connection_sum"), requests),
        "answered = measured": (requests, of("request_duration_seconds_count")),
        "asked of endpoints = measured": (of("endpoint_requests_total"), of("endpoint_duration_seconds_count")),
        "asked of the pool `main` = what its origin says it was asked":
            (of("endpoint_requests_total", pool="main"), asked_of_origin),
    }  # fmt: skip


def slope(points):
    """Of the straight line that lies nearest to the points."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 0 if spread == 0 else sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
