"""`hammer.py PORT SECONDS`: asks for everything that the admin interface has, as fast as it answers; prints how often.

At the lowest priority: this process stands for other machines, and what it takes of this one is not the router's doing.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections import Counter

CONNECTIONS = 8
PATHS = (
    "/metrics", "/admin/metrics/prometheus", "/admin/metrics.json?tree=1", "/client_state.json", "/requests.json", "/requests",
    "/bound-names.json", "/namer_state/$/inet.json", "/admin/events.json", "/admin/workers.json", "/config.json", "/",
    "/delegator.json?path=/svc/s1", "/admin/metrics/influxdb", "/ready", "/openapi.json",
)  # fmt: skip


def ask(port: int, end: float, at: int, statuses: Counter[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while time.monotonic() < end:
        connection.request("GET", PATHS[at % len(PATHS)])
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
        at += 1
    connection.close()


def main() -> None:
    os.nice(19)
    port, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    statuses: Counter[int] = Counter()
    threads = [threading.Thread(target=ask, args=(port, end, 2 * at, statuses)) for at in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(statuses, sys.stdout)


if __name__ == "__main__":
    main()
