"""What is known of models, as data."""
