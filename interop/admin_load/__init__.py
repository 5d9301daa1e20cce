"""What a hammered admin interface costs the calls."""
