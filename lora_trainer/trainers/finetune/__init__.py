"""The trainer of whole models."""
