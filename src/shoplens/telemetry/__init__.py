"""What the process tells about itself: structured logs and Prometheus metrics."""
