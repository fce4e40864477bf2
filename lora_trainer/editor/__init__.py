"""A page in the browser on which a preset is read, changed, checked and saved."""
