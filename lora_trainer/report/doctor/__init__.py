"""The page about a data set: what is wrong with its pictures and captions, what that means, and what to do."""
