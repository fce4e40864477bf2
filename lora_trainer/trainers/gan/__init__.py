"""The GAN trainer."""
