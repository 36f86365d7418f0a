"""What one run tells the next."""
