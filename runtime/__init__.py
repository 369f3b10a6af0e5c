"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""
