"""Quotas to Prometheus: knows nothing of the network."""
