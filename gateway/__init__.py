"""The gateway: what the decisions look like to Envoy, how they reach it, and the process around it."""
