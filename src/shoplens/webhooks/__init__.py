"""Signed events to other systems, kept until they are delivered."""
