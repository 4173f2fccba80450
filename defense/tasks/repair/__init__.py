"""Find out whether treating the lowest scores helps where nobody attacks."""
