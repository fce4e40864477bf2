"""One-step restoration: its LoRA and checkpoint form, its discriminator, and how a picture of any size is restored."""
