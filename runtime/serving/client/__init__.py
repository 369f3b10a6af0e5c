"""The device's side, with a server behind it."""
