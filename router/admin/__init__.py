"""The admin interface: an HTTP server in the supervisor, beside the data path and not on it."""
