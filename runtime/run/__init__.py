"""Run the segments of a bundle on stock engines."""
