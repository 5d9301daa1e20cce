"""The standard gRPC interop cases, client x server x case, through the router."""
