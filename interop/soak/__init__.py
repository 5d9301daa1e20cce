"""Mixed and rude traffic for minutes, after which nothing of it may be left in the router."""
