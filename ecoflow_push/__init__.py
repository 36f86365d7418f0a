"""One snapshot of EcoFlow devices, pushed to Prometheus."""

__version__ = "0.1.0"

#: Where the project lives.
URL = "https://github.com/ecoflow-push/ecoflow-push"
#: Where who has only the installed command can read the docs.
DOCS = f"{URL}/blob/main/docs"
