"""The people known: stored in SQLite, matched in memory."""
