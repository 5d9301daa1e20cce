"""Programs of other projects that make the calls."""
