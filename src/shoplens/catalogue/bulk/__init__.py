"""Accept many suggestions at once, and take that back."""
