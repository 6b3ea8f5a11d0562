"""Blueprints: experiments to begin with, as files of a data directory, and how they are added to one."""
