"""Suites that check waypost against programs of other projects: see README.md."""
