"""The neutral intermediate representation."""
