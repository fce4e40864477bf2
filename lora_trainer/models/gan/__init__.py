"""The networks of the StyleGAN family: StyleGAN2, StyleGAN3-T and -R, CREPS, their discriminator and its augmentation.

Parameters and buffers have the names and shapes of the official snapshots, so that those load. The networks choose the
precision of each layer themselves (`half_precision.py`), so they are to be called outside autocast.
"""
