"""What one can ask of jobledger: commands, claims, the worker runtime, rescue, job kinds. No driver, no transport."""
