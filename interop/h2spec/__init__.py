"""h2spec, the HTTP/2 conformance tool, against the router's front side."""
