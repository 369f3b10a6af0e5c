"""Bundles on disk: manifest, folders and packed sides, and patches between builds."""
