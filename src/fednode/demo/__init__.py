"""A whole federation on one machine: real processes, real HTTP on loopback."""
