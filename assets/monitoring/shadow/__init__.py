"""Shadow: live questions answered a second time by the champion and by the candidate."""
