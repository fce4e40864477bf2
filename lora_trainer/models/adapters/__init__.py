"""What is trained beside a frozen model: LoRA and its relatives, layer by layer."""
