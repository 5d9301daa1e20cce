"""Distributed tracing: contexts in headers, sampling, spans, and where these are sent.

``forms``        how contexts are written in headers: ``l5d-ctx-trace``, B3, W3C
``propagators``  the kinds of ``tracePropagator``
``sampling``     who decides whether a trace is sampled
``tracing``      what a router does about it
``filters``      the layers of the stacks
``spans``        from exchanges to spans
``exporter``     the queue between the calls and a collector
``post``         HTTP to a collector
``zipkin``, ``otlp``, ``tracelog``  telemeters
"""
