"""Labels of people to a better model: label set, training, gate, and the way to production."""
