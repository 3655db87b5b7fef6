"""Delta xDS between an agent and its gateways, and between a gateway process and its Envoy: one protocol, two uses."""
