"""Model formats: their readers and writers, and what is known of their operators."""
