"""gRPC on HTTP/2: deadlines, statuses, and the ``h2`` and ``grpc`` kinds of routers.

What concerns messages of any protocol (the content-type rule, Trailers-Only answers) is in ``router.model``.
"""
