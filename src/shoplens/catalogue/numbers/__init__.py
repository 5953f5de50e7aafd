"""The numbers of a catalogue: coverage, accuracy and the rate of acceptance."""
