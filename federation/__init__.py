"""Multi-cluster federation: one service space over many clusters, with a gateway and a certificate authority in each."""
