"""WebSocket libraries of others, through the router."""
