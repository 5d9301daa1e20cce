"""Routers under simulated faults: the real path, client and endpoint stacks on a clock of our own.

``python -m tests.simulation`` runs every scenario and writes the plots and tables of ``docs/reliability.md``.
"""
