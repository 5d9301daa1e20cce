"""The kernel: what every filter, balancer and protocol is written against.

==============  ================================================================================
``strand``      the coroutine of one exchange and what drives it; waiters; ``in_trio``
``timers``      one timer wheel per worker
``host``        what a worker gives to strands: nursery, clock, timers, a place for crashes
``headers``     fields as byte pairs; request and response heads, shared and immutable
``body``        one direction's bytes: sources, sinks, credit
``exchange``    the conversation about one request; replies; outcomes
``failure``     what went wrong, who is to blame, and the one table of answers
``service``     the two function types: service and filter
``stack``       modules in request order, edited by role, checked, described
``metrics``     counters, gauges and histograms as slots
==============  ================================================================================

Nothing here knows a protocol, a configuration format or a plugin.
"""
