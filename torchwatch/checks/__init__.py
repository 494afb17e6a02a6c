"""The checks, one per file; the folder is the category, the file's name is the slug."""
