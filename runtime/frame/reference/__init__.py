"""The frame format in numpy: FORMAT.md as a program, and the codec where the C extension is missing."""
