"""Choosing an endpoint, and the connections to each."""
