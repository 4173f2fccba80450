"""One run: its data, and its stages in the order that a task asks for."""
