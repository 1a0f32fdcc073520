"""What travels: bodies, the params file, and the one HTTP client."""
