"""What tests share: backends, clients, fakes."""
