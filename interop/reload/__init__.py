"""Reloads and killed workers under load: what is refused, and what is lost."""
