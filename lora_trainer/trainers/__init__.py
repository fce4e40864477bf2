"""What each kind of training does in a step, and the files it writes. No trainer imports another."""
