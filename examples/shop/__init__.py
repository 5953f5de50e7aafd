"""An online shop whose review photos Shoplens moderates."""
