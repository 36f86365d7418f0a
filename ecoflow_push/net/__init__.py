"""HTTP under one deadline; knows neither EcoFlow nor Prometheus."""
