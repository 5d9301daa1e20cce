"""Protocol plugins: wire transport, HTTP/1.1, HTTP/2 and gRPC."""
