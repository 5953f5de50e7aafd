"""Run models: engine, queue, sessions."""
