"""The stages of a run: typed artifact in, typed artifact out; each can be called in a notebook."""
