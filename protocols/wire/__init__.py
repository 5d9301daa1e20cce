"""Sockets under a protocol: one poller per worker, one output buffer and one syscall per connection and batch."""
