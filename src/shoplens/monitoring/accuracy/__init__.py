"""How often models are right in production, from the answers of people, and the threshold for a goal."""
