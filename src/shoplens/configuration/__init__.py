"""What is set, where each value comes from, and the thresholds that people edit on the page Settings."""
