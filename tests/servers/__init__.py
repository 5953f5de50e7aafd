"""Real servers for tests, started from Python packages without a container: Valkey, PostgreSQL, S3."""
