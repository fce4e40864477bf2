"""What can be known of a data set before a training: each file opened once, its size, its copies, its caption."""
