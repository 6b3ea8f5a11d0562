"""Variants, trials, statistics, leaderboard and recommendation."""
