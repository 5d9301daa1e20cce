"""Configuration files: Linkerd's YAML with positions, every error at once."""
