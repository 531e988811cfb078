"""The report of a search: its text in Markdown, its pictures, and a page in which the front can be pointed at."""
