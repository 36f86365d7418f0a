"""One snapshot of EcoFlow devices, pushed to Prometheus."""

__version__ = "0.1.0"
