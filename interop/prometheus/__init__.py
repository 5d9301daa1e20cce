"""A real Prometheus scrapes the router, and knows of every call."""
