"""Documents: listing, parsing, quarantine and document versions."""
