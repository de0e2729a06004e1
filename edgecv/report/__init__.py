"""The report: one schema for host and device, rendered as JSON, Markdown, JUnit XML and HTML."""
