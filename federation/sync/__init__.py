"""How facts travel between agents and the hub: the protocol (pure), its server and its client."""
