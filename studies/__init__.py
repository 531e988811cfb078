"""Scripts that answer a question and leave a table, a figure and a short report behind."""
