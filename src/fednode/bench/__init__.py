"""What this machine can do: load put on a central node of its own, measured. `swarm` is many clients at once."""
