"""One learning problem a file. The only room that may import a machine-learning framework."""
