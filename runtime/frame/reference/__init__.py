"""The frame format in numpy: FORMAT.md as a program, and the codec without the C extension."""
