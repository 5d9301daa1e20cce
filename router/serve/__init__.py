"""Processes: a supervisor that owns the listening sockets, and workers that serve them; replacing workers is the one
mechanism behind reload, restart, crash recovery and the use of several cores."""
