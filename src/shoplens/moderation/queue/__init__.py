"""The queue of photos that wait for a person: claims, decisions, undo, and the page Moderation."""
