"""Find out how much of a gain under evasion survives a strict protocol."""
