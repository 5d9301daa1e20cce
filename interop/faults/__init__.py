"""Real backends that are killed, paused, restarted, slowed and drained under load, behind the router."""
