"""Which exchanges were successes; one protocol a file."""
