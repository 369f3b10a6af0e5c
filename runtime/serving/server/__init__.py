"""The server's side as a service."""
