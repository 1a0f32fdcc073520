"""The client node: dials out, works on one assignment at a time, never loses a finished update."""
