"""Structured logs, the log of job starts, and Prometheus metrics."""
