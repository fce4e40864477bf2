"""The one training loop and what it needs: it decides when; a trainer decides what one step means."""
