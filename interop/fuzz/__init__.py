"""Bytes that nobody would send, for every reader of bytes; guided by coverage."""
