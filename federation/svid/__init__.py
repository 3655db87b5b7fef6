"""Certificates for workloads: how they are asked for, what is checked before the authority is, and what is answered."""
