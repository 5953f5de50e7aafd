"""What happened when: load, decisions, storage, drift and accuracy over time."""
