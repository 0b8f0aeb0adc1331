"""The door for clients: WHIP in front, our transceivers behind, steering in the middle."""
