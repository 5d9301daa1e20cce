"""gRPC-Web from a browser, by the client that gRPC's own project makes."""
