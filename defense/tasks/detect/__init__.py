"""Find out whether scores find labels that are known to be wrong."""
