"""What things are and the rules between them: plain values and pure functions, no I/O, no third party."""
