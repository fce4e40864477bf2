"""The super-resolution trainer."""
