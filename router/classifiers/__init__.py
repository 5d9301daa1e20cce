"""Response classifiers: was an exchange that is over a success, and if not, may it be sent again?

========  ============================================================================
``http``  ``io.l5d.http.*``: by status
``h2``    ``io.l5d.h2.*``: by status; gRPC streams, in the default, by their grpc-status
``grpc``  ``io.l5d.h2.grpc.*``: by grpc-status only
========  ============================================================================

A response counts only once it has ended as it should (``exchange.complete``): a reset or truncated one is a failure
whatever its status was. ``exchange.failure`` need not be looked at: what ended in one was never completed, and what
failed after the response was complete (the rest of an upload that nobody wanted) does not make it a failure.
"""
