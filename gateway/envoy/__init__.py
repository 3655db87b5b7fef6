"""Envoy as a process: where it is, how it starts, what it says of itself."""
