"""The use cases, one verb per file. They know ports and values, and neither HTTP nor the terminal."""
