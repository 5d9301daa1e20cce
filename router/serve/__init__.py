"""Listening, and stopping."""
