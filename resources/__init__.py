"""What the assets talk to: PostgreSQL, search, document sources, models, prompts, notifiers."""
