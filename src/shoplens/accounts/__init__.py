"""People, their roles and sessions, API keys, and the audit log."""
