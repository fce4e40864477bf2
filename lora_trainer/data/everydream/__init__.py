"""Data sets as EveryDream2 lays them out: captions of a main prompt and tags, settings of folders, whole batches."""
