"""A diagnosis as Markdown, HTML, JSON and PNG, all rendered from one value."""
