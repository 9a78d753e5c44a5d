"""Training: data, degradation, losses and the loop."""
