"""What people said of samples, as versioned sets for training."""
