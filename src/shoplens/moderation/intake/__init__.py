"""From the bytes of a photo to its first decision, for one request and for a backlog."""
