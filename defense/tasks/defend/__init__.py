"""Find out whether treating the lowest scores makes a model robust."""
