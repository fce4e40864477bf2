"""Pictures, captions and their order: from folders on disk to what a step trains on."""
