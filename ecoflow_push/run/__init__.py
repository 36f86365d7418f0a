"""One run, and the beat of many."""
