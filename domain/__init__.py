"""What a job is: its events, its state, its rules. The standard library and msgspec only."""
