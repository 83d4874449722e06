"""Records to what people read: the log, progress on the terminal, figures and the report."""
