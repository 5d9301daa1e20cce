"""The router: configuration, name binding, balancing and the filters that an exchange passes through."""

__version__ = "0.1.0"
