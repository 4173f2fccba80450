"""Find out how long scorers take on the same work."""
