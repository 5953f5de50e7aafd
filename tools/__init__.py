"""What the project's own commands need: locking, file hygiene, generated reference pages, links."""
