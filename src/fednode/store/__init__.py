"""What survives a restart: rows, params files, journal and events. The only room that speaks SQL."""
