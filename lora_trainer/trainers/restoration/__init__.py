"""The restoration trainer."""
