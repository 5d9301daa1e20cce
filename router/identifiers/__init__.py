"""How requests get their names; one kind a file."""
