"""Suggestions for one product: from the model, or from the tree alone where no model knows it."""
