"""Multi-cluster federation: one service space over many clusters, each with a gateway and an authority of its own."""
