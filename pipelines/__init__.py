"""How it runs: definitions, jobs, schedules, sensors, alerts and the command line."""
