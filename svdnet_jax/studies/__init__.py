"""The paper's tables and figures, one file each: a question, the runs that answer it, a table, a figure."""
