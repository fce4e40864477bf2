"""Noise, timesteps and weights: pure functions of tensors and numbers."""
