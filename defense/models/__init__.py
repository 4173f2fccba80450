"""Networks, made and put into temporary states."""
