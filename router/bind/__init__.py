"""Names to services: what a path is bound to, picked from and conducted by, cached by what varies."""
