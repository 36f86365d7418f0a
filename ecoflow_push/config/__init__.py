"""The environment, read once, with all its faults in one message."""
