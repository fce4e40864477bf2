"""Discriminators: what tells made pictures from real ones. Each takes (b, 3, h, w) from 0 to 1 and gives logits."""
