"""Model formats: readers, writers and what is known of their operators."""
