"""What the trainers of diffusion models share."""
