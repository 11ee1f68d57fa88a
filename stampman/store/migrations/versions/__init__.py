"""One file for each step of the schema; what is released never changes."""
