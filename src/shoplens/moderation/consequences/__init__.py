"""Consequences of decisions: statements of reasons, appeals, strikes, erasure, retention and labels for training."""
