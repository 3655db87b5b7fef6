"""The REST API under /v1: routes as data, one server for hub, agent and gateway, one client."""
