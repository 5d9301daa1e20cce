"""How names get their addresses; one kind a file."""
