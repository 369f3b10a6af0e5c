"""Bundles on disk: manifest, folders and packed sides, patches between builds."""
