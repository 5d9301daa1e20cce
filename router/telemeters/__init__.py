"""What metrics look like from outside: merged from all workers, and shown in several forms.

================  ======================================================================
``snapshot``      values at one moment, and histograms with their percentiles
``names``         Linkerd's names with labels taken out of them
``linkerd_json``  Linkerd's ``metrics.json``, flat or as a tree
``prometheus``    Prometheus' text, with Linkerd's names, and OpenMetrics with conventional ones
``influxdb``      InfluxDB's line protocol
``statsd``        statsd's datagrams
``recent_requests``  records of the last requests, kept by each worker
================  ======================================================================
"""
