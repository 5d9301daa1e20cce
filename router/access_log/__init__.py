"""The record of each request: who asked for what, which rules led it where, what became of it; written without waiting."""
