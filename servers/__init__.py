"""Real servers for tests, bench and load: Valkey, PostgreSQL, an S3 store, and Shoplens itself."""
