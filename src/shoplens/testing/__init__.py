"""What users' own tests may use: hostile pictures, and the sentences that every store must keep."""
