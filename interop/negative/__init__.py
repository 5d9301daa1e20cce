"""Backends that misbehave, and what clients and backends must see of it through the router."""
