"""Networks, made and put into temporary states."""

VERSION = 1  # of the numbers that this code computes: raise it, and every stage on it has new keys
