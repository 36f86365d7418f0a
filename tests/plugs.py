"""What asks for every source and every sink, one line or two for each."""

EVERY_SOURCE = {
    "ECOFLOW_ACCESS_KEY": "AK-0123456789",
    "ECOFLOW_SECRET_KEY": "SK-0123456789",
    "ECOFLOW_ACCOUNT_USER": "me@example.org",
    "ECOFLOW_ACCOUNT_PASSWORD": "a password",
}
EVERY_SINK = {
    "TEXTFILE_PATH": "/nonexistent/x.prom",
    "EXPORTER_PORT": "9100",
    "PUSHGATEWAY_URL": "http://127.0.0.1:9/metrics/",
    "REMOTE_WRITE_URL": "http://127.0.0.1:9/write",
}
